"""Pages that are on their way: a prompt was sent to a replica and its pages are not reported yet.

A burst that shares a prefix arrives faster than the first request's pages are computed. Without these entries each of
its requests would see cold caches everywhere and the prefix would be computed on all replicas.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

from ...core.blocks import BlockKey


class Speculation:
    """Entries (key, replica bit) with an end of life; a later promise for the same entry prolongs it."""

    def __init__(self) -> None:
        self.masks: dict[BlockKey, int] = {}
        self._until: dict[tuple[BlockKey, int], float] = {}
        self._ends: list[tuple[float, int, int, Sequence[BlockKey]]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._until)

    def promise(self, bit: int, keys: Sequence[BlockKey], until: float) -> None:
        """The replica of `bit` is expected to hold `keys`, until the clock shows `until`."""
        if not keys:
            return
        for key in keys:
            self.masks[key] = self.masks.get(key, 0) | bit
            entry = (key, bit)
            self._until[entry] = max(until, self._until.get(entry, until))
        heapq.heappush(self._ends, (until, next(self._order), bit, keys))

    def settle(self, bit: int, key: BlockKey) -> None:
        """The promise came true, or cannot any more."""
        if self._until.pop((key, bit), None) is not None:
            self._unmark(bit, key)

    def expire(self, now: float) -> None:
        """Drops what is past its time."""
        while self._ends and self._ends[0][0] <= now:
            _, _, bit, keys = heapq.heappop(self._ends)
            for key in keys:
                until = self._until.get((key, bit))
                if until is not None and until <= now:
                    self.settle(bit, key)

    def forget(self, bit: int) -> None:
        """Drops all promises of one replica."""
        for key in [key for key, owner in self._until if owner == bit]:
            self.settle(bit, key)
        self._ends = [entry for entry in self._ends if entry[2] != bit]
        heapq.heapify(self._ends)

    def _unmark(self, bit: int, key: BlockKey) -> None:
        mask = self.masks[key] & ~bit
        if mask:
            self.masks[key] = mask
        else:
            del self.masks[key]
