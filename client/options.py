"""What a caller can ask for: the options of a request, and how the client retries."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from ..core.errors import HeadwayError, Unavailable
from .grammars import Grammar


class GenerateOptions(TypedDict, total=False):
    """Options of generate and chat. One left out, or None, takes the model's default; bounds are the server's.

    `n` sequences share the prompt and differ in their random numbers. `logprobs` asks for the log probability of each
    token of the output and of so many of the likeliest ones at its place, `prompt_logprobs` for those of the prompt.
    `logit_bias` maps token ids to what is added to their logits. What the output must look like is said by `grammar`
    with a typed value, or by one of `json_schema`, `json_object`, `regex`, `choice` and `ebnf`. Requests of a lower
    `priority` are served first.
    """

    model: str | None
    request_id: str | None
    n: int | None
    priority: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    max_new_tokens: int | None
    min_new_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_string: bool | None
    ignore_eos: bool | None
    logit_bias: Mapping[int, float] | None
    allowed_token_ids: Sequence[int] | None
    bad_words: str | Sequence[str] | None
    grammar: Grammar | None
    json_schema: Mapping[str, Any] | bool | str | None
    json_object: bool | None
    regex: str | None
    choice: str | Sequence[str] | None
    ebnf: str | None
    return_text: bool | None
    return_token_ids: bool | None
    skip_special_tokens: bool | None
    logprobs: int | None
    prompt_logprobs: int | None
    cache_salt: str | None
    cache_bypass: bool | None


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When to try again: only on Unavailable, and only while no token has come, so that nothing is done twice.

    The server's RetryInfo sets the delay where there is one; otherwise it doubles from `first_delay_s`, with jitter. A
    delay above `max_delay_s`, or past the call's deadline, is not slept: the error is raised at once.
    """

    attempts: int = 3
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")

    def delay_s(self, attempt: int, error: HeadwayError, remaining_s: float | None) -> float | None:
        """Seconds to sleep after the failure of `attempt` (the first is 1); None when it must be raised."""
        if not isinstance(error, Unavailable) or attempt >= self.attempts:
            return None
        if error.retry_after_s is not None:
            delay = error.retry_after_s
        else:
            delay = min(self.first_delay_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25), self.max_delay_s)
        if delay > self.max_delay_s or (remaining_s is not None and delay >= remaining_s):
            return None
        return delay
