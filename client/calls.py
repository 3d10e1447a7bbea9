"""Each method of InferenceService as the client calls it: name, message, and how to read the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from ..core.errors import InvalidRequest
from ..proto.headway.v1 import inference_pb2 as pb
from .embeddings import Embeddings, EmbedOptions, Inputs, embed_request, read_embeddings
from .errors import why
from .options import GenerateOptions
from .requests import Conversation, chat_messages, chat_request, generate_request
from .responses import read_model, read_tokens
from .values import Model, Tokens

Answer = TypeVar("Answer")
# Message, seconds left -> the pending call.
OpenCall = Callable[[Any, float | None], Any]


class Unary(NamedTuple, Generic[Answer]):
    """A call with one answer."""

    method: str
    request: Any
    read: Callable[[Any], Answer]


class Streaming(NamedTuple):
    """A call whose answer is a stream of GenerateResponse, or of ChatResponse around them."""

    method: str
    request: pb.GenerateRequest | pb.ChatRequest

    @property
    def sequences(self) -> int:
        """How many the answer will have."""
        request = self.request.generate if isinstance(self.request, pb.ChatRequest) else self.request
        return request.n if request.HasField("n") else 1

    @staticmethod
    def unwrap(message: pb.GenerateResponse | pb.ChatResponse) -> pb.GenerateResponse:
        return message.generate if isinstance(message, pb.ChatResponse) else message


def generate(prompt: str | Sequence[int], options: GenerateOptions) -> Streaming:
    return Streaming("Generate", generate_request(prompt, options))


def chat(messages: Conversation, options: GenerateOptions, template_args: Mapping[str, Any] | None = None) -> Streaming:
    return Streaming("Chat", chat_request(messages, options, template_args))


def embed(inputs: Inputs, options: EmbedOptions) -> Unary[Embeddings]:
    return Unary("Embed", embed_request(inputs, options), read_embeddings)


def tokenize(text: str, messages: Conversation | None, model: str, add_special_tokens: bool) -> Unary[Tokens]:
    conversation = [] if messages is None else chat_messages(messages)
    try:
        request = pb.TokenizeRequest(
            model=model, text=text, messages=conversation, add_special_tokens=add_special_tokens
        )
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"text {why(error)}", field="text") from None
    return Unary("Tokenize", request, read_tokens)


def detokenize(token_ids: Sequence[int], model: str) -> Unary[str]:
    try:
        request = pb.DetokenizeRequest(model=model, token_ids=token_ids)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"token_ids: {why(error)}", field="token_ids") from None
    return Unary("Detokenize", request, lambda answer: str(answer.text))


def abort(request_ids: Sequence[str]) -> Unary[list[str]]:
    request = pb.AbortRequest(request_ids=request_ids)
    return Unary("Abort", request, lambda answer: list(answer.aborted_request_ids))


def get_model(name: str) -> Unary[Model]:
    return Unary("GetModel", pb.GetModelRequest(model=name), lambda answer: read_model(answer.model))


def list_models(page_token: str) -> Unary[tuple[list[Model], str]]:
    """One page, and the token of the next, empty after the last."""
    request = pb.ListModelsRequest(page_token=page_token)
    return Unary(
        "ListModels", request, lambda page: ([read_model(model) for model in page.models], page.next_page_token)
    )
