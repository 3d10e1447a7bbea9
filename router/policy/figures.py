"""A replica's last report in the numbers that predictions need, with a stand-in for each that is not known yet."""

from __future__ import annotations

import msgspec

from ...proto.headway.v1 import engine_pb2

# Stand-ins until a replica has measured its own; all replicas of a cold start get the same, so that they tie.
DEFAULT_PREFILL_RATE = 4_000.0
DEFAULT_DECODE_STEP_S = 0.010
DEFAULT_MEAN_OUTPUT = 128.0
DEFAULT_MEAN_OUTPUT_REQUESTS = 8  # so many requests weigh as much as the stand-in
DEFAULT_MAX_WAITING = 1_024


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Load and limits of one replica. Rates are tokens a second, 0 when not measured yet; 0 limits are not known.

    `computed_tokens` are the prompt tokens computed since its start, behind `prefill_rate` as evidence.
    """

    running: int = 0
    waiting: int = 0
    waiting_uncached_tokens: int = 0
    used_pages: int = 0
    total_pages: int = 0
    page_size: int = 16
    max_sequences: int = 0
    max_waiting: int = DEFAULT_MAX_WAITING
    prefill_rate: float = 0.0
    computed_tokens: int = 0
    decode_step_s: float = DEFAULT_DECODE_STEP_S
    mean_output: float = DEFAULT_MEAN_OUTPUT
    silence_s: float = 0.0
    accepting: bool = True


def figures_from_load(load: engine_pb2.Load, description: engine_pb2.DescribeResponse) -> Figures:
    """The figures of one report of the replica that describes itself so."""
    totals = load.totals
    stand_in = DEFAULT_MEAN_OUTPUT * DEFAULT_MEAN_OUTPUT_REQUESTS
    return Figures(
        running=load.running,
        waiting=load.waiting,
        waiting_uncached_tokens=load.waiting_uncached_tokens,
        used_pages=load.used_pages,
        total_pages=load.total_pages,
        page_size=description.page_size,
        max_sequences=description.max_sequences,
        max_waiting=description.max_waiting or DEFAULT_MAX_WAITING,
        prefill_rate=load.prefill_rate,
        computed_tokens=max(0, totals.prompt_tokens - totals.cached_tokens),
        decode_step_s=load.decode_step_ms / 1e3 or DEFAULT_DECODE_STEP_S,
        mean_output=(totals.output_tokens + stand_in) / (totals.requests + DEFAULT_MEAN_OUTPUT_REQUESTS),
        silence_s=load.engine_silence_ms / 1e3,
        accepting=load.accepting,
    )
