"""Rows of the persistent batch."""

from __future__ import annotations


class Rows:
    """Row numbers 0 to count - 1. Those freed since the last plan wait here for the next one to say so."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count - 1, -1, -1))
        self._freed: list[int] = []

    @property
    def available(self) -> int:
        return len(self._free)

    def take(self) -> int:
        return self._free.pop()

    def free(self, row: int) -> None:
        """Gives the row back."""
        self._free.append(row)
        self._freed.append(row)

    def drain(self) -> list[int]:
        """Freed rows for the next plan."""
        freed, self._freed = self._freed, []
        return freed
