"""What happens to one request, as both fronts tell it to their callers."""

from __future__ import annotations

import msgspec

from ..proto.headway.v1 import sampling_pb2


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """First event, once: facts known when the first token is there."""

    request_id: str
    model: str
    model_revision: str
    prompt_token_ids: list[int]
    cached_tokens: int
    seed: int
    replica_id: str


class Delta(msgspec.Struct, frozen=True):
    """New tokens. `text` lags behind them while a character or a possible stop string is incomplete.

    `offset` is the output position of the first token that no earlier delta covered, `total` the tokens so far.
    `token_ids` are the new ones; those of steps that had nothing to show are missing unless the caller asked for ids.
    """

    text: str
    token_ids: list[int]
    offset: int
    total: int


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """Last event, once: why the sequence ended, and the counts. Times are seconds since arrival."""

    reason: sampling_pb2.FinishReason
    stop_string: str | None
    stop_token_id: int | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_s: float
    total_s: float
    migrations: int
    preemptions: int


Event = Started | Delta | Finished
