"""What a run measured, kept in memory that does not grow with it."""

from __future__ import annotations

import time
from collections import Counter

import msgspec

from .histogram import Histogram, Summary

# A cluster that is gone refuses thousands of requests a second; a full one lets some through in between.
HOPELESS = 1000


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times are the client's own, in milliseconds from the moment a request was due.

    `ttft` is the time to the first token, `tpot` the time per token after it (one value a request), `itl` the gap
    between two messages of a stream (one value a message), `e2e` the whole request, `lag` how late the generator itself
    sent. `arrivals_s` is when the last request was due, `gave_up` that too many in a row failed, `cached_share` of
    prompt tokens. `generator_cpu` is the share of one core that the generator used: near 1, the figures are of the
    generator and not of the cluster.
    """

    mode: str
    concurrency: int | None
    rate: float | None
    requests: int
    completed: int
    errors: dict[str, int]
    gave_up: bool
    duration_s: float
    arrivals_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    requests_per_s: float
    cached_share: float
    peak_in_flight: int
    migrations: int
    generator_cpu: float
    ttft_ms: Summary | None
    tpot_ms: Summary | None
    itl_ms: Summary | None
    e2e_ms: Summary | None
    lag_ms: Summary | None


class Tally:
    """Counts requests as they go. One a run."""

    def __init__(self) -> None:
        self.ttft, self.tpot, self.itl, self.e2e, self.lag = (Histogram() for _ in range(5))
        self.errors: Counter[str] = Counter()
        self.sent = self.completed = self.in_flight = self.peak_in_flight = 0
        self.failed_in_a_row = 0
        self.prompt_tokens = self.cached_tokens = self.output_tokens = self.migrations = 0
        self._began = self._last = self._last_due = time.perf_counter()
        self._cpu = time.process_time()

    @property
    def done(self) -> int:
        return self.completed + self.errors.total()

    def start(self, due: float) -> None:
        """A request was sent, which was due at that time.perf_counter()."""
        self.sent += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.lag.add(time.perf_counter() - due)
        self._last_due = max(self._last_due, due)

    @property
    def hopeless(self) -> bool:
        """Whether so many requests failed one after the other that more would measure nothing."""
        return self.failed_in_a_row >= HOPELESS

    def failed(self, reason: str) -> None:
        """A request ended with that error."""
        self.errors[reason] += 1
        self.failed_in_a_row += 1

    def end(self) -> None:
        """A request ended, well or not."""
        self.in_flight -= 1
        self._last = time.perf_counter()

    def elapsed_s(self) -> float:
        """From the run's begin to the last end of a request."""
        return max(self._last - self._began, 1e-9)

    def report(self, mode: str, concurrency: int | None, rate: float | None) -> RunReport:
        """The figures so far."""
        seconds = self.elapsed_s()
        return RunReport(
            mode=mode,
            concurrency=concurrency,
            rate=rate,
            requests=self.sent,
            completed=self.completed,
            errors=dict(self.errors),
            duration_s=seconds,
            arrivals_s=max(self._last_due - self._began, 0.0),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            output_tokens_per_s=self.output_tokens / seconds,
            requests_per_s=self.completed / seconds,
            gave_up=self.hopeless,
            cached_share=self.cached_tokens / max(self.prompt_tokens, 1),
            peak_in_flight=self.peak_in_flight,
            migrations=self.migrations,
            generator_cpu=(time.process_time() - self._cpu) / seconds,
            ttft_ms=self.ttft.summary(),
            tpot_ms=self.tpot.summary(),
            itl_ms=self.itl.summary(),
            e2e_ms=self.e2e.summary(),
            lag_ms=self.lag.summary(),
        )
