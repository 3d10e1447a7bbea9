"""Percentiles of any number of durations in a fixed amount of memory."""

from __future__ import annotations

import math

import msgspec

LEAST_MS = 1e-3
# Each bucket is 2 % wider than the one before, so a percentile is at most 1 % off.
GROWTH = 1.02
BUCKETS = math.ceil(math.log(3_600_000 / LEAST_MS) / math.log(GROWTH))


class Summary(msgspec.Struct, frozen=True):
    """Of a histogram, in milliseconds; percentiles to 1 %."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class Histogram:
    """Counts of durations in logarithmic buckets from 1 µs to 1 h; what lies outside counts as the nearest."""

    def __init__(self) -> None:
        self.count = 0
        self._counts = [0] * BUCKETS
        self._sum = 0.0
        self._least = math.inf
        self._most = 0.0

    def add(self, seconds: float) -> None:
        """Counts one duration."""
        ms = max(seconds, 0.0) * 1000
        bucket = int(math.log(max(ms, LEAST_MS) / LEAST_MS) / math.log(GROWTH))
        self._counts[min(bucket, BUCKETS - 1)] += 1
        self.count += 1
        self._sum += ms
        self._least, self._most = min(self._least, ms), max(self._most, ms)

    def quantile(self, share: float) -> float:
        """The smallest duration, in ms, that `share` of all do not exceed; 0 when there is none."""
        if not self.count:
            return 0.0
        wanted, seen = max(math.ceil(share * self.count), 1), 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                middle: float = LEAST_MS * GROWTH ** (bucket + 0.5)
                return min(max(middle, self._least), self._most)
        return self._most

    def summary(self) -> Summary | None:
        """None when nothing was counted."""
        if not self.count:
            return None
        mean = self._sum / self.count
        return Summary(mean, self.quantile(0.5), self.quantile(0.9), self.quantile(0.99), self._most)
