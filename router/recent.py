"""The last ten seconds in figures, for the controller and its dashboard. Cheap enough to be told of every chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

WINDOW_S = 10
# Enough for a 99th percentile; more samples of one second are passed over.
MOST_SAMPLES = 1_000


class Second(msgspec.Struct):
    """What happened in one second. Times in seconds."""

    number: int
    finished: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    first_token_times: list[float] = msgspec.field(default_factory=list)
    token_gaps: list[float] = msgspec.field(default_factory=list)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The window: rates a second, times in seconds (0 without samples), the hit ratio from 0 to 1."""

    output_tokens_per_second: float
    requests_per_second: float
    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    prefix_hit_ratio: float


class RecentFigures:
    """A ring of seconds. Callers pass `now`, seconds of any one clock."""

    def __init__(self, now: float) -> None:
        self._start = now
        self._seconds: deque[Second] = deque(maxlen=WINDOW_S + 1)

    def first_token(self, now: float, ttft_s: float, prompt_tokens: int, cached_tokens: int) -> None:
        second = self._second(now)
        second.prompt_tokens += prompt_tokens
        second.cached_tokens += cached_tokens
        if len(second.first_token_times) < MOST_SAMPLES:
            second.first_token_times.append(ttft_s)

    def tokens(self, now: float, count: int, gap_s: float | None) -> None:
        """`count` tokens came, `gap_s` for each after those before; None with the first ones."""
        second = self._second(now)
        second.output_tokens += count
        if gap_s is not None and len(second.token_gaps) < MOST_SAMPLES:
            second.token_gaps.append(gap_s)

    def finished(self, now: float) -> None:
        self._second(now).finished += 1

    def summary(self, now: float) -> Summary:
        """The whole seconds of the last ten and the present one."""
        seconds = [second for second in self._seconds if second.number > int(now) - WINDOW_S]
        length = min(float(WINDOW_S), max(1.0, now - self._start))
        ttfts = sorted(time for second in seconds for time in second.first_token_times)
        gaps = sorted(gap for second in seconds for gap in second.token_gaps)
        prompt = sum(second.prompt_tokens for second in seconds)
        return Summary(
            output_tokens_per_second=sum(second.output_tokens for second in seconds) / length,
            requests_per_second=sum(second.finished for second in seconds) / length,
            ttft_p50=quantile(ttfts, 0.5),
            ttft_p99=quantile(ttfts, 0.99),
            tpot_p50=quantile(gaps, 0.5),
            tpot_p99=quantile(gaps, 0.99),
            prefix_hit_ratio=sum(second.cached_tokens for second in seconds) / prompt if prompt else 0.0,
        )

    def _second(self, now: float) -> Second:
        number = int(now)
        if not self._seconds or self._seconds[-1].number < number:
            self._seconds.append(Second(number))
        return self._seconds[-1]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted samples; 0 without any."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
