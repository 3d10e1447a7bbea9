"""From the messages of inference.proto to the request that both fronts share."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage

from ...core.errors import InvalidRequest
from ...core.wire import grammar_from_proto
from ...proto.headway.v1 import inference_pb2, pooling_pb2
from ..validation.embedding import POOLINGS, UserEmbedding
from ..validation.limits import MAX_REQUEST_BYTES
from ..validation.request import FieldNames, Message, UserRequest

_NAMES = {
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "min_p": "sampling.min_p",
    "seed": "sampling.seed",
    "presence_penalty": "sampling.presence_penalty",
    "frequency_penalty": "sampling.frequency_penalty",
    "repetition_penalty": "sampling.repetition_penalty",
    "max_new_tokens": "stopping.max_new_tokens",
    "stop_strings": "stopping.stop_strings",
    "stop_token_ids": "stopping.stop_token_ids",
    "min_new_tokens": "stopping.min_new_tokens",
    "ignore_eos": "stopping.ignore_eos",
    "logit_bias": "constraints.logit_bias",
    "allowed_token_ids": "constraints.allowed_token_ids",
    "bad_words": "constraints.bad_words",
    "grammar": "constraints.grammar",
    "want_text": "output.text",
    "logprobs": "output.logprobs",
    "prompt_logprobs": "output.prompt_logprobs",
    "cache_salt": "cache.salt",
}
_TEXT = FieldNames({**_NAMES, "prompt": "prompt.text"})
_IDS = FieldNames({**_NAMES, "prompt": "prompt.token_ids.ids"})
_UNSET = FieldNames({**_NAMES, "prompt": "prompt"})
_CHAT = FieldNames(
    {name: f"generate.{path}" for name, path in _NAMES.items()}
    | {name: f"generate.{name}" for name in ("request_id", "model", "n", "priority")}
)
_EMBED = FieldNames({"cache_salt": "cache.salt"})
_FORM_NAMES = {"text": ".text", "token_ids": ".token_ids.ids", None: ""}
_POOLING_NAMES: dict[int, str] = {number: name for name, number in POOLINGS.items()}
_POOLING_NAMES[pooling_pb2.POOLING_UNSPECIFIED] = "last"


def from_generate(message: inference_pb2.GenerateRequest) -> UserRequest:
    """Raises InvalidRequest for a message over the size limit; nothing else is checked here."""
    check_size(message)
    form = message.prompt.WhichOneof("form")
    if form == "text":
        return _common(message, _TEXT, prompt=message.prompt.text)
    if form == "token_ids":
        return _common(message, _IDS, prompt=list(message.prompt.token_ids.ids))
    return _common(message, _UNSET)


def from_chat(message: inference_pb2.ChatRequest) -> UserRequest:
    """Raises InvalidRequest for a message over the size limit and for a prompt beside messages."""
    check_size(message)
    if message.generate.HasField("prompt"):
        raise InvalidRequest("generate.prompt must be unset: Chat takes messages", field="generate.prompt")
    return _common(
        message.generate,
        _CHAT,
        chat=True,
        messages=to_messages(message.messages),
        template_args=MessageToDict(message.template_args) if message.HasField("template_args") else {},
    )


def from_embed(message: inference_pb2.EmbedRequest) -> UserEmbedding:
    """Raises InvalidRequest for a message over the size limit; nothing else is checked here."""
    check_size(message)
    forms = [prompt.WhichOneof("form") for prompt in message.inputs]

    def name(index: int) -> str:
        return f"inputs[{index}]{_FORM_NAMES[forms[index]]}"

    return UserEmbedding(
        names=_EMBED,
        input_name=name,
        request_id=message.request_id,
        model=message.model,
        inputs=[_input(prompt, form) for prompt, form in zip(message.inputs, forms, strict=True)],
        pooling=_POOLING_NAMES.get(message.pooling, str(message.pooling)),
        normalize=message.normalize if message.HasField("normalize") else True,
        dimensions=message.dimensions if message.HasField("dimensions") else None,
        cache_salt=message.cache.salt,
        cache_bypass=message.cache.bypass,
    )


def _input(prompt: inference_pb2.Prompt, form: str | None) -> str | list[int] | None:
    if form == "text":
        return prompt.text
    return None if form is None else list(prompt.token_ids.ids)


def to_messages(messages: Any) -> list[Message]:
    """An unset role is one left out; unset content is empty text, which protobuf does not tell apart."""
    return [Message(message.role or None, message.content) for message in messages]


def check_size(message: ProtoMessage) -> None:
    """The same limit as on an HTTP body."""
    size = message.ByteSize()
    if size > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"the request has {size} bytes; at most {MAX_REQUEST_BYTES}")


def _common(message: inference_pb2.GenerateRequest, names: FieldNames, **inputs: Any) -> UserRequest:
    stopping, output, cache = message.stopping, message.output, message.cache
    constraints = message.constraints
    grammar = grammar_from_proto(constraints.grammar)
    if grammar is not None:
        form = "choice.texts" if grammar.kind == "choice" else grammar.kind
        names = names.replaced(grammar=names["grammar"] + "." + form)
    return UserRequest(
        names=names,
        request_id=message.request_id,
        model=message.model,
        sampling={field.name: value for field, value in message.sampling.ListFields()},
        max_new_tokens=stopping.max_new_tokens if stopping.HasField("max_new_tokens") else None,
        stop_strings=list(stopping.stop_strings),
        stop_token_ids=list(stopping.stop_token_ids),
        include_stop_string=stopping.include_stop_string,
        ignore_eos=stopping.ignore_eos,
        want_text=output.text if output.HasField("text") else True,
        want_token_ids=output.token_ids,
        skip_special_tokens=output.skip_special_tokens if output.HasField("skip_special_tokens") else True,
        cache_salt=cache.salt,
        cache_bypass=cache.bypass,
        n=message.n if message.HasField("n") else 1,
        priority=message.priority,
        min_new_tokens=stopping.min_new_tokens,
        logit_bias=dict(constraints.logit_bias),
        allowed_token_ids=list(constraints.allowed_token_ids) or None,
        bad_words=list(constraints.bad_words),
        grammar=grammar,
        logprobs=output.logprobs if output.HasField("logprobs") else None,
        prompt_logprobs=output.prompt_logprobs if output.HasField("prompt_logprobs") else None,
        **inputs,
    )
