"""Whether every rank still goes through the loop."""

from __future__ import annotations

from collections.abc import Sequence


class Pulse:
    """Compares the last plan that was sent with the plans that the ranks have done."""

    def __init__(self, ranks: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._marks = [0] * ranks
        self._seen = [0.0] * ranks

    def check(self, now: float, sent: int, marks: Sequence[int]) -> list[int]:
        """Ranks that owe a step and have not moved for the timeout. Call it several times within one."""
        for rank, mark in enumerate(marks):
            if mark >= sent or mark != self._marks[rank] or not self._seen[rank]:
                self._marks[rank] = mark
                self._seen[rank] = now
        return [rank for rank, seen in enumerate(self._seen) if now - seen > self._timeout_s]
