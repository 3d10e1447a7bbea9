"""How far the ranks are with what the disk has to do, in one word a rank: written there, read by the leader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SINCE_BITS = 20  # far more jobs than are ever on their way
LONG_AGO = (1 << SINCE_BITS) - 1


class Progress(NamedTuple):
    """`finished` disk jobs, counted since the start, those that failed included; `broken` once one has failed. `spoilt`
    is the last one that read another page than was written, 0 when there is none of late."""

    finished: int
    broken: bool
    spoilt: int = 0

    @property
    def word(self) -> int:
        """All in one number below 2**64, so that a reader in another process sees them change together."""
        since = min(self.finished - self.spoilt, LONG_AGO) if self.spoilt else LONG_AGO
        return (self.finished << SINCE_BITS | since) << 1 | self.broken

    @classmethod
    def of(cls, word: int) -> Progress:
        """What `word` says; 0 is that of a rank that has said nothing yet."""
        finished, since = word >> 1 + SINCE_BITS, word >> 1 & LONG_AGO
        return cls(finished, bool(word & 1), finished - since if since < LONG_AGO else 0)

    @classmethod
    def of_all(cls, words: Iterable[int]) -> Progress:
        """What all ranks have finished, and whether any is broken or read what was not written."""
        ranks = [cls.of(word) for word in words]
        return cls(
            min(rank.finished for rank in ranks),
            any(rank.broken for rank in ranks),
            max(rank.spoilt for rank in ranks),
        )
