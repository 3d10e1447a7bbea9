"""What happens to one request, as both fronts tell it to their callers."""

from __future__ import annotations

import msgspec

from ..proto.headway.v1 import sampling_pb2


class LogprobEntry(msgspec.Struct, frozen=True):
    """A token, the natural logarithm of its probability, and its bytes by itself: not always whole characters."""

    token_id: int
    logprob: float
    text: bytes


class TokenLogprob(msgspec.Struct, frozen=True):
    """One place: its own token, and the likeliest ones there, best first."""

    token: LogprobEntry
    top: list[LogprobEntry]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """First event, once: facts known when the first token is there.

    `prompt_logprobs` (from the second prompt token on), `first_prompt_token` with them, and `prompt_text` are there
    only when asked for.
    """

    request_id: str
    model: str
    model_revision: str
    prompt_token_ids: list[int]
    cached_tokens: int
    seed: int
    replica_id: str
    prompt_logprobs: list[TokenLogprob] = []
    prompt_text: str = ""
    first_prompt_token: bytes = b""


class Delta(msgspec.Struct, frozen=True):
    """New tokens of sequence `index`. `text` lags while a character or a possible stop string is incomplete.

    `offset` is the output position of the first token that no earlier delta covered, `total` the tokens so far of all
    the request's sequences. `token_ids` are the new ones, with `logprobs` of each when asked for; those of steps that
    had nothing to show are missing unless the caller asked for either.
    """

    text: str
    token_ids: list[int]
    offset: int
    total: int
    index: int = 0
    logprobs: list[TokenLogprob] = []


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """Why sequence `index` ended; nothing of it comes after. `total` is as in Delta."""

    reason: sampling_pb2.FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None
    index: int = 0
    total: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Last event, once: the counts, output and moves of all sequences added up. Times are seconds since arrival."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_s: float
    total_s: float
    migrations: int
    preemptions: int


Event = Started | Delta | Finished | Usage
