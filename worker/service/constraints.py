"""What a Submit says beside tokens and sampling, checked: a NaN, or an id that is none, must not reach the ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from ...core.constraints import (
    BIAS,
    GRAMMAR_KINDS,
    MAX_LOGPROBS,
    MAX_PROMPT_VALUES,
    MAX_SEQUENCES,
    PRIORITY,
    Grammar,
    TokenRules,
)
from ...core.errors import InvalidRequest
from ...core.wire import grammar_from_proto
from ...proto.headway.v1 import engine_pb2


def rules_from(message: engine_pb2.Submit, vocab_size: int) -> TokenRules:
    """Its rules over token ids, end ids included when there is a least length. Raises InvalidRequest."""
    check_ids("eos_token_ids", message.eos_token_ids, vocab_size)
    check_ids("stop_token_ids", message.stop_token_ids, vocab_size)
    check_ids("logit_bias", message.logit_bias, vocab_size)
    check_ids("allowed_token_ids", message.allowed_token_ids, vocab_size)
    for token, value in message.logit_bias.items():
        if not BIAS.holds(value):
            raise _invalid("logit_bias", f"of token {token} must be {BIAS}, got {value}")
    for word in message.bad_words:
        if not word.ids:
            raise _invalid("bad_words", "must hold one id at least each")
        check_ids("bad_words", word.ids, vocab_size)
    least = message.min_new_tokens
    if least > message.max_new_tokens:
        raise _invalid("min_new_tokens", f"must be at most max_new_tokens = {message.max_new_tokens}, got {least}")
    return TokenRules(
        logit_bias=tuple(message.logit_bias.items()),
        allowed=tuple(message.allowed_token_ids),
        bad_words=tuple(tuple(word.ids) for word in message.bad_words),
        min_new_tokens=least,
        end_token_ids=tuple({*message.eos_token_ids, *message.stop_token_ids}) if least else (),
    )


def grammar_from(message: engine_pb2.Submit) -> Grammar | None:
    """Its grammar, of which only the form has been checked."""
    if not message.HasField("grammar"):
        return None
    grammar = grammar_from_proto(message.grammar)
    if grammar is None:
        raise _invalid("grammar", f"must have one form: {', '.join(GRAMMAR_KINDS)}")
    return grammar


def logprobs_from(message: engine_pb2.Submit) -> tuple[int, int]:
    """How many likeliest tokens it wants beside its output's and its prompt's own; -1 for nothing at all."""
    if message.HasField("prompt_logprobs") and message.delivered:
        raise _invalid("prompt_logprobs", f"must be unset with {message.delivered} tokens delivered")
    counts = []
    for name in ("logprobs", "prompt_logprobs"):
        count = getattr(message, name) if message.HasField(name) else -1
        if count > MAX_LOGPROBS:
            raise _invalid(name, f"must be at most {MAX_LOGPROBS}, got {count}")
        counts.append(count)
    tokens, values = len(message.token_ids), len(message.token_ids) * (1 + counts[1])
    if values > MAX_PROMPT_VALUES:
        text = f"= {counts[1]} for {tokens} tokens are {values} values, and {MAX_PROMPT_VALUES} are the most"
        raise _invalid("prompt_logprobs", text)
    return counts[0], counts[1]


def sequence_from(message: engine_pb2.Submit) -> int:
    """Which of its public request's sequences it is."""
    if message.sequence >= MAX_SEQUENCES:
        raise _invalid("sequence", f"must be below {MAX_SEQUENCES}, got {message.sequence}")
    return message.sequence


def priority_from(message: engine_pb2.Submit) -> int:
    """Its priority, lower is served first."""
    if not PRIORITY.holds(message.priority):
        raise _invalid("priority", f"must be {PRIORITY}, got {message.priority}")
    return message.priority


def deadline_from(message: engine_pb2.Submit) -> float:
    """When it ends whatever it has, on this process's time.monotonic(); infinity for never."""
    if not message.HasField("time_left"):
        return math.inf
    left = message.time_left.seconds + message.time_left.nanos * 1e-9
    if left < 0:
        raise _invalid("time_left", f"must not be below 0, got {left:g} s")
    return time.monotonic() + left


def check_ids(name: str, ids: Iterable[int], vocab_size: int) -> None:
    """Raises InvalidRequest unless all are ids of the vocabulary."""
    highest = max(ids, default=0)
    if highest >= vocab_size:
        raise _invalid(name, f"must be below the vocabulary's {vocab_size}, got {highest}")


def _invalid(name: str, text: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {text}", field=name)
