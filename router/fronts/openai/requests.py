"""From OpenAI's bodies to the request that both fronts share."""

from __future__ import annotations

import ctypes
from typing import Any

import msgspec

from ....core.errors import InvalidRequest
from ....core.sampling import BOUNDS
from ...validation.request import FieldNames, Message, UserRequest
from .decode import check_neutral, decode
from .schema import (
    CHAT_NEUTRAL,
    COMPLETION_NEUTRAL,
    MESSAGE_NEUTRAL,
    ChatBody,
    ChatFields,
    CommonFields,
    CompletionBody,
    CompletionFields,
    MessageFields,
    StreamOptions,
)
from .structured import read_grammar

_NAMES = FieldNames(
    {
        "max_new_tokens": "max_tokens",
        "stop_strings": "stop",
        "min_new_tokens": "min_tokens",
        "template_args": "chat_template_kwargs",
        "request_id": "x-request-id",
    }
)
_chat_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(ChatBody)
_completion_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(CompletionBody)
_texts: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[str])
_id_lists: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[list[int]])
_text_or_ids: msgspec.json.Decoder[Any] = msgspec.json.Decoder(str | list[int] | None)
ID_DIGITS = 10
COMPLETION_MAX_TOKENS = 16  # OpenAI's default for /v1/completions, which its callers count on


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller wants back, beside the request itself."""

    stream: bool
    usage: bool
    usage_in_chunks: bool
    token_ids: bool
    n: int
    # Alternatives to tell beside each token; None for no log probabilities.
    logprobs: int | None
    # The same of the prompt, in vLLM's field of its own.
    prompt_logprobs: int | None
    # The prompt's text first; with `no_output`, and nothing after it.
    echo: bool = False
    no_output: bool = False


async def read_chat(body: bytes, request_id: str) -> tuple[UserRequest, Wanted]:
    """Raises InvalidRequest naming the field that has the wrong type or asks for what is not offered."""
    fields: Any = await decode(body, _chat_decoder)
    check_neutral(fields, CHAT_NEUTRAL)
    names = _NAMES.replaced(logprobs="top_logprobs")
    limit = _limit(fields)
    if fields.max_completion_tokens is not None:
        names = names.replaced(max_new_tokens="max_completion_tokens")
    if fields.top_logprobs and not fields.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", field="top_logprobs")
    logprobs = fields.top_logprobs or 0
    request = await _common(
        fields,
        names,
        request_id,
        chat=True,
        max_new_tokens=limit,
        logprobs=logprobs if fields.logprobs else None,
        prompt_logprobs=fields.prompt_logprobs,
        messages=[_message(message, index) for index, message in enumerate(fields.messages or ())],
        template_args=fields.chat_template_kwargs or {},
    )
    return request, _wanted(fields, request)


async def read_completion(body: bytes, request_id: str) -> tuple[UserRequest, Wanted]:
    """As `read_chat`."""
    fields: Any = await decode(body, _completion_decoder)
    check_neutral(fields, COMPLETION_NEUTRAL)
    prompt = await _prompt(fields)
    if fields.best_of is not None and fields.best_of != (1 if fields.n is None else fields.n):
        raise InvalidRequest("best_of is not supported by this server beyond n; leave it out", field="best_of")
    echo = bool(fields.echo)
    no_output = echo and fields.max_tokens == 0
    request = await _common(
        fields,
        _NAMES,
        request_id,
        prompt=prompt,
        # An engine gives one token at least.
        max_new_tokens=1 if no_output else fields.max_tokens,
        usual_new_tokens=COMPLETION_MAX_TOKENS,
        logprobs=fields.logprobs,
        prompt_logprobs=_most(fields.prompt_logprobs, fields.logprobs if echo else None),
        echo=echo,
    )
    return request, msgspec.structs.replace(_wanted(fields, request), echo=echo, no_output=no_output)


def _most(*counts: int | None) -> int | None:
    """The largest of those that are set; a negative one, which is to be refused, goes before all."""
    given = [count for count in counts if count is not None]
    return min(given) if min(given, default=0) < 0 else max(given, default=None)


async def _common(fields: CommonFields, names: FieldNames, request_id: str, **rest: Any) -> UserRequest:
    stop = fields.stop
    found = await read_grammar(fields)
    if found is not None:
        names = names.replaced(grammar=found[0])
    return UserRequest(
        names=names,
        request_id=request_id,
        model=fields.model or "",
        sampling=_sampling(fields),
        stop_strings=[stop] if isinstance(stop, str) else stop or [],
        stop_token_ids=fields.stop_token_ids or [],
        include_stop_string=bool(fields.include_stop_str_in_output),
        ignore_eos=bool(fields.ignore_eos),
        want_token_ids=bool(fields.return_token_ids),
        skip_special_tokens=fields.skip_special_tokens is not False,
        cache_salt=fields.cache_salt or "",
        cache_bypass=bool(fields.cache_bypass),
        n=1 if fields.n is None else fields.n,
        priority=fields.priority or 0,
        min_new_tokens=fields.min_tokens or 0,
        logit_bias=_logit_bias(fields.logit_bias or {}),
        allowed_token_ids=fields.allowed_token_ids,
        bad_words=fields.bad_words or [],
        grammar=None if found is None else found[1],
        **rest,
    )


def _sampling(fields: CommonFields) -> dict[str, float]:
    """The scalars that are set, as the wire to the engine carries them: floats of 32 bits, the same as by gRPC."""
    values = {}
    for name in BOUNDS:
        value = getattr(fields, name)
        if value is not None:
            values[name] = ctypes.c_float(value).value if isinstance(value, float) else value
    return values


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    """OpenAI writes token ids as JSON must write names: as strings."""
    bias = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= ID_DIGITS):
            field = f"logit_bias[{key[:40]}]"
            raise InvalidRequest(f"{field} is no token id: a whole number, at least 0", field=field)
        bias[int(key)] = ctypes.c_float(value).value
    return bias


def _limit(fields: ChatFields) -> int | None:
    """max_completion_tokens, or max_tokens as it was called before; one of them."""
    new, old = fields.max_completion_tokens, fields.max_tokens
    if new is not None and old is not None and new != old:
        raise InvalidRequest(
            f"max_tokens ({old}) and max_completion_tokens ({new}) are the same limit; give one", field="max_tokens"
        )
    return old if new is None else new


def _wanted(fields: CommonFields, request: UserRequest) -> Wanted:
    options = fields.stream_options
    if options is not None and not fields.stream:
        raise InvalidRequest("stream_options needs stream to be true", field="stream_options")
    options = options or StreamOptions()
    if options.include_obfuscation:
        field = "stream_options.include_obfuscation"
        raise InvalidRequest(f"{field} is not supported by this server; leave it out", field=field)
    return Wanted(
        stream=bool(fields.stream),
        usage=bool(options.include_usage),
        usage_in_chunks=bool(options.continuous_usage_stats),
        token_ids=bool(fields.return_token_ids),
        n=request.n,
        logprobs=request.logprobs,
        prompt_logprobs=fields.prompt_logprobs,
    )


def _message(message: MessageFields, index: int) -> Message:
    at = f"messages[{index}]."
    check_neutral(message, MESSAGE_NEUTRAL, at)
    content = message.content
    if not isinstance(content, list):
        return Message(message.role, content)
    for part_index, part in enumerate(content):
        field = f"{at}content[{part_index}]"
        if part.type != "text":
            raise InvalidRequest(f"{field}.type must be text, got {part.type!r}", field=f"{field}.type")
        if part.text is None:
            raise InvalidRequest(f"{field}.text is missing", field=f"{field}.text")
    return Message(message.role, "\n".join(part.text or "" for part in content))


async def _prompt(fields: CompletionFields) -> str | list[int] | None:
    """Text or token ids, or a list with one of them."""
    raw = bytes(fields.prompt)
    inner = raw[1:].lstrip()[:1] if raw[:1] == b"[" else b""
    value: str | list[int] | None
    if inner == b'"':
        value = _only(await decode(raw, _texts, "prompt"))
    elif inner == b"[":
        value = _only(await decode(raw, _id_lists, "prompt"))
    else:
        value = await decode(raw, _text_or_ids, "prompt")
    return value


def _only(prompts: list[Any]) -> Any:
    if len(prompts) > 1:
        raise InvalidRequest(f"prompt has {len(prompts)} prompts; this server takes one a request", field="prompt")
    return prompts[0] if prompts else None
