"""Rows of the persistent batch, and what the ranks have not been told of them yet."""

from __future__ import annotations


class Rows:
    """Row numbers 0 to count - 1. Rows freed and tokens appended since the last plan wait here for the next one."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count - 1, -1, -1))
        self._freed: list[int] = []
        self._appended: dict[int, int] = {}

    @property
    def available(self) -> int:
        return len(self._free)

    def take(self) -> int:
        return self._free.pop()

    def free(self, row: int) -> None:
        """Gives the row back. Its token, if the ranks do not have it yet, must not reach the row's next owner."""
        self._free.append(row)
        self._freed.append(row)
        self._appended.pop(row, None)

    def append(self, row: int, token: int) -> None:
        self._appended[row] = token

    def drain(self) -> tuple[list[int], list[tuple[int, int]]]:
        """(freed rows, appended tokens) for the next plan."""
        freed, self._freed = self._freed, []
        appended, self._appended = list(self._appended.items()), {}
        return freed, appended
