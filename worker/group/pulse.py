"""Whether every rank still goes through the loop."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ping_interval(timeout_s: float) -> float:
    """Seconds after which ranks that have nothing to do are asked for a sign of life."""
    return min(1.0, timeout_s / 4)


class Pulse:
    """Compares the last plan that was sent with the plans that the ranks have done.

    `check` it every `tick_s`: then a rank that stops is late within the timeout, also one that was idle, which owes
    nothing before the next ping. If a request comes before that, its step has the whole timeout, as any."""

    def __init__(self, ranks: int, timeout_s: float) -> None:
        self.tick_s = min(0.25, timeout_s / 50)
        self._patience_s = timeout_s - 2 * self.tick_s  # it begins a tick late at most, and ends one late
        self._ping_patience_s = self._patience_s - ping_interval(timeout_s)
        self._marks = [0] * ranks
        self._late_at = [math.inf] * ranks

    def check(self, now: float, sent: int, worked: int, marks: Sequence[int]) -> list[int]:
        """Ranks that owe a step and have not moved for too long. `worked` is the last plan that was no mere ping."""
        for rank, mark in enumerate(marks):
            if mark >= sent:
                self._late_at[rank] = math.inf
            elif mark != self._marks[rank] or self._late_at[rank] == math.inf:
                self._late_at[rank] = now + (self._patience_s if mark < worked else self._ping_patience_s)
            self._marks[rank] = mark
        return [rank for rank, late_at in enumerate(self._late_at) if now >= late_at]
