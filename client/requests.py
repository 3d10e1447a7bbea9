"""The messages of inference.proto that a caller's arguments make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct

from ..core.errors import InvalidRequest
from ..core.sampling import BOUNDS
from ..proto.headway.v1 import inference_pb2 as pb
from . import grammars
from .errors import why
from .options import GenerateOptions
from .values import ChatMessage

Conversation = str | Sequence[ChatMessage | Mapping[str, str]]

# Option -> path in GenerateRequest, which is also what the server's errors name.
PATHS = {name: f"sampling.{name}" for name in BOUNDS} | {
    "model": "model",
    "request_id": "request_id",
    "n": "n",
    "priority": "priority",
    "max_new_tokens": "stopping.max_new_tokens",
    "min_new_tokens": "stopping.min_new_tokens",
    "stop": "stopping.stop_strings",
    "stop_token_ids": "stopping.stop_token_ids",
    "include_stop_string": "stopping.include_stop_string",
    "ignore_eos": "stopping.ignore_eos",
    "logit_bias": "constraints.logit_bias",
    "allowed_token_ids": "constraints.allowed_token_ids",
    "bad_words": "constraints.bad_words",
    "return_text": "output.text",
    "return_token_ids": "output.token_ids",
    "skip_special_tokens": "output.skip_special_tokens",
    "logprobs": "output.logprobs",
    "prompt_logprobs": "output.prompt_logprobs",
    "cache_salt": "cache.salt",
    "cache_bypass": "cache.bypass",
}
LISTS = ("stop", "stop_token_ids", "allowed_token_ids", "bad_words")
COUNTS = ("logprobs", "prompt_logprobs")


def generate_request(prompt: str | Sequence[int] | None, options: GenerateOptions) -> pb.GenerateRequest:
    """The message of `options` with the prompt; None is for Chat, which has messages instead.

    Raises TypeError for an option that does not exist, InvalidRequest for a value that the message cannot hold.
    """
    request = pb.GenerateRequest()
    for name, value in options.items():
        if name in grammars.OPTIONS:
            continue
        if name not in PATHS:
            raise TypeError(f"unknown option {name!r}; there are {', '.join(sorted([*PATHS, *grammars.OPTIONS]))}")
        if value is not None:
            _set(request, name, value)
    grammar = grammars.chosen(options)
    if grammar is not None:
        request.constraints.grammar.CopyFrom(grammar)
    try:
        if isinstance(prompt, str):
            request.prompt.text = prompt
        elif prompt is not None:
            request.prompt.token_ids.ids.extend(prompt)
            request.prompt.token_ids.SetInParent()
    except (ValueError, TypeError) as error:
        field = "prompt.text" if isinstance(prompt, str) else "prompt.token_ids"
        raise InvalidRequest(f"{field}: {why(error)}", field=field) from None
    return request


def _set(request: pb.GenerateRequest, name: str, value: Any) -> None:
    *parents, leaf = PATHS[name].split(".")
    target: Any = request
    for parent in parents:
        target = getattr(target, parent)
    try:
        if name in LISTS:
            getattr(target, leaf).extend([value] if isinstance(value, str) else value)
        elif name == "logit_bias":
            getattr(target, leaf).update(value)
        elif name in COUNTS and isinstance(value, bool):
            raise TypeError(f"is a number of tokens at each place, 0 for only the one that came; got {value}")
        else:
            setattr(target, leaf, value)
    except (ValueError, TypeError) as error:
        problem = f"must be {BOUNDS[name]}, got {value!r}" if name in BOUNDS else why(error)
        raise InvalidRequest(f"{name} {problem}", field=PATHS[name]) from None
    # The message would not tell none from all.
    if name == "allowed_token_ids" and not getattr(target, leaf):
        raise InvalidRequest(f"{name} is empty: no token could come; leave it out to allow all", field=PATHS[name])


def chat_messages(conversation: Conversation) -> list[pb.ChatMessage]:
    """The messages; a plain string is one message of the user. Raises InvalidRequest naming the message."""
    if isinstance(conversation, str):
        conversation = [ChatMessage("user", conversation)]
    made = []
    for index, message in enumerate(conversation):
        fields = {"role": message.role, "content": message.content} if isinstance(message, ChatMessage) else message
        field = f"messages[{index}]"
        if set(fields) != {"role", "content"}:
            raise InvalidRequest(f"{field} must have role and content, and has {sorted(fields)}", field=field)
        try:
            made.append(pb.ChatMessage(role=fields["role"], content=fields["content"]))
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"{field}: {why(error)}", field=field) from None
    return made


def chat_request(
    conversation: Conversation, options: GenerateOptions, template_args: Mapping[str, Any] | None
) -> pb.ChatRequest:
    """The message of a conversation. Raises as `generate_request`."""
    request = pb.ChatRequest(generate=generate_request(None, options), messages=chat_messages(conversation))
    if template_args:
        arguments = Struct()
        try:
            arguments.update(template_args)
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"template_args: {error}", field="template_args") from None
        request.template_args.CopyFrom(arguments)
    return request
