"""Checks of what a request asks beside its sampling: how many sequences, which tokens, what shape, what to tell."""

from __future__ import annotations

import msgspec

from ...core.constraints import BIAS, MAX_LOGPROBS, MAX_PROMPT_VALUES, MAX_SEQUENCES, PRIORITY, Grammar
from ...core.errors import InvalidRequest
from ...core.sampling import Bound
from . import limits
from .request import UserRequest

_BOUNDS = {
    "n": Bound(1, MAX_SEQUENCES),
    "priority": PRIORITY,
    "min_new_tokens": Bound(0, 2**32 - 1),
    "logprobs": Bound(0, MAX_LOGPROBS),
    "prompt_logprobs": Bound(0, MAX_LOGPROBS),
}


def check_constraints(request: UserRequest) -> None:
    """Raises InvalidRequest naming the caller's field and its bound."""
    for name, bound in _BOUNDS.items():
        value = getattr(request, name)
        if value is not None and not bound.holds(value):
            raise refusal(request, name, f"must be {bound}, got {value}")
    _check_tokens(request)
    _check_bad_words(request)
    if request.grammar is not None:
        _check_grammar(request, request.grammar)
        _check_together(request)


def check_prompt_values(request: UserRequest, prompt_tokens: int) -> None:
    """Raises InvalidRequest for more log probabilities of a prompt than one message may hold."""
    top = request.prompt_logprobs
    if top is not None and (values := prompt_tokens * (1 + top)) > MAX_PROMPT_VALUES:
        what = f"= {top} for a prompt of {prompt_tokens} tokens asks for {values} values; at most {MAX_PROMPT_VALUES}"
        raise refusal(request, "prompt_logprobs", what)


def refusal(request: UserRequest, name: str, what: str) -> InvalidRequest:
    """The refusal of a field, by the caller's name for it."""
    field = request.names[name]
    return InvalidRequest(f"{field} {what}", field=field)


def _check_tokens(request: UserRequest) -> None:
    bias = request.logit_bias
    if len(bias) > limits.MAX_LOGIT_BIAS:
        raise refusal(request, "logit_bias", f"has {len(bias)} ids; at most {limits.MAX_LOGIT_BIAS}")
    for token_id, value in bias.items():
        if not BIAS.holds(value):
            raise refusal(request, f"logit_bias[{token_id}]", f"must be {BIAS}, got {value:g}")
    if request.allowed_token_ids is not None and not request.allowed_token_ids:
        raise refusal(request, "allowed_token_ids", "is empty: no token could come; leave it out to allow all")


def _check_bad_words(request: UserRequest) -> None:
    words = request.bad_words
    if len(words) > limits.MAX_BAD_WORDS:
        raise refusal(request, "bad_words", f"has {len(words)} words; at most {limits.MAX_BAD_WORDS}")
    for index, word in enumerate(words):
        if not word.strip():
            raise refusal(request, f"bad_words[{index}]", "is empty")
        if len(word) > limits.MAX_BAD_WORD:
            raise refusal(request, f"bad_words[{index}]", f"has {len(word)} characters; at most {limits.MAX_BAD_WORD}")


def _check_grammar(request: UserRequest, grammar: Grammar) -> None:
    if grammar.kind == "choice":
        _check_choices(request, grammar.choices)
    elif grammar.kind != "json_object" and not grammar.text.strip():
        raise refusal(request, "grammar", "is empty")
    if grammar.kind == "regex" and len(grammar.text) > limits.MAX_REGEX:
        raise refusal(request, "grammar", f"has {len(grammar.text)} characters; at most {limits.MAX_REGEX}")
    if grammar.kind in ("json_schema", "ebnf"):
        size = len(grammar.text.encode())
        if size > limits.MAX_SCHEMA_BYTES:
            raise refusal(request, "grammar", f"has {size} bytes; at most {limits.MAX_SCHEMA_BYTES}")
    if grammar.kind == "json_schema":
        _check_schema(request, grammar.text)


def _check_choices(request: UserRequest, choices: tuple[str, ...]) -> None:
    if not choices:
        raise refusal(request, "grammar", "has no texts to choose from; at least one")
    if len(choices) > limits.MAX_CHOICES:
        raise refusal(request, "grammar", f"has {len(choices)} texts; at most {limits.MAX_CHOICES}")
    for index, text in enumerate(choices):
        if not text:
            raise refusal(request, f"grammar[{index}]", "is empty")
        if len(text) > limits.MAX_CHOICE:
            raise refusal(request, f"grammar[{index}]", f"has {len(text)} characters; at most {limits.MAX_CHOICE}")


def _check_schema(request: UserRequest, text: str) -> None:
    """A schema is an object, or true or false. What its keywords mean is the engine's to judge."""
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise refusal(request, "grammar", f"is no JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise refusal(request, "grammar", "must be a JSON schema: an object, true or false")


def _check_together(request: UserRequest) -> None:
    """A grammar says where the output may end, and then nothing else can come."""
    grammar = request.names["grammar"]
    if request.ignore_eos:
        raise refusal(request, "ignore_eos", f"cannot be combined with {grammar}, which says where the output ends")
    if request.min_new_tokens:
        raise refusal(request, "min_new_tokens", f"cannot be combined with {grammar}, which says where the output ends")
