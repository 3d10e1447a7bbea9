"""How far the ranks are with what the disk has to do, in one word a rank: written there, read by the leader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Progress(NamedTuple):
    """`finished` disk jobs, counted since the start, those that failed included; `broken` once one has failed."""

    finished: int
    broken: bool

    @property
    def word(self) -> int:
        """Both in one number below 2**64, so that a reader in another process sees them change together."""
        return self.finished << 1 | self.broken

    @classmethod
    def of_all(cls, words: Iterable[int]) -> Progress:
        """What all ranks have finished, and whether any is broken."""
        words = list(words)
        return cls(min(word >> 1 for word in words), any(word & 1 for word in words))
