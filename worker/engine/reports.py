"""What the engine's loop says after each step: plain values, made into messages on the asyncio side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...core.errors import HeadwayError
from ...proto.headway.v1.sampling_pb2 import FinishReason
from ..pages import KvChange
from ..plan import PlaceLogprobs
from ..tiers import TierFigures

Int64 = npt.NDArray[np.int64]


class Output(NamedTuple):
    """New tokens of one request, or its embedding. `cached_tokens`, `prompt_logprobs` are set in the first output, the
    finish reason in the last."""

    id: int
    token_ids: list[int]
    finish: FinishReason
    stop_token_id: int | None
    cached_tokens: int | None
    preemptions: int
    embedding: bytes = b""
    logprobs: PlaceLogprobs | None = None
    prompt_logprobs: PlaceLogprobs | None = None


class Decoded(NamedTuple):
    """Requests of one session that went on by one token each and have nothing else to tell: most, at most steps. Each
    is there once, and its first output has been reported before. Nobody writes to the arrays any more.
    """

    ids: Int64
    """[n], of the requests."""
    tokens: Int64
    """[n], their new tokens."""


class Refused(NamedTuple):
    """A request that is not taken."""

    id: int
    error: HeadwayError


class Figures(NamedTuple):
    """Load of the engine at one moment. Counters are since its start; rates and times are measured, 0 before that."""

    running: int = 0
    waiting: int = 0
    uncached_tokens: int = 0
    used_pages: int = 0
    cached_pages: int = 0
    total_pages: int = 0
    prefill_rate: float = 0.0
    decode_step_ms: float = 0.0
    accepting: bool = False
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    preemptions: int = 0
    aborts: int = 0
    step_seconds: float = 0.0
    model_seconds: float = 0.0
    page_size: int = 0
    tiers: TierFigures = TierFigures()


class StepReport(NamedTuple):
    """Everything that happened since the last report. The dictionaries are by session.

    `decoded` come before what `outputs` and `refusals` say of the same request. `submitted` holds the highest request
    id that each session has submitted: `figures` count them.
    """

    outputs: dict[int, list[Output]]
    decoded: dict[int, Decoded]
    refusals: dict[int, list[Refused]]
    submitted: dict[int, int]
    kv_changes: list[KvChange]
    figures: Figures
