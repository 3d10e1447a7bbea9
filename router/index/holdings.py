"""What lies on one medium: block key -> the replicas that hold its page there, as bits of an int."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from ...core.blocks import BlockKey


class Medium(IntEnum):
    """Where a replica holds a page, the nearest first. It may hold it on several."""

    DEVICE = 0
    HOST = 1
    DISK = 2


class Holdings:
    """Pages of all replicas on one medium. A replica is the bit that stands for it."""

    def __init__(self) -> None:
        self.masks: dict[BlockKey, int] = {}
        self._held: dict[int, set[BlockKey]] = {}

    def __len__(self) -> int:
        """Number of different pages."""
        return len(self.masks)

    def of(self, bit: int) -> set[BlockKey]:
        """What one replica holds."""
        return self._held.get(bit, set())

    def add(self, bit: int, keys: Sequence[BlockKey]) -> None:
        self._held.setdefault(bit, set()).update(keys)
        masks = self.masks
        for key in keys:
            masks[key] = masks.get(key, 0) | bit

    def remove(self, bit: int, keys: Iterable[BlockKey]) -> None:
        """Pages that the replica does not hold are passed over."""
        held = self._held.get(bit)
        if not held:
            return
        for key in keys:
            if key in held:
                held.remove(key)
                self._unmark(bit, key)

    def clear(self, bit: int) -> None:
        for key in self._held.pop(bit, ()):
            self._unmark(bit, key)

    def _unmark(self, bit: int, key: BlockKey) -> None:
        mask = self.masks[key] & ~bit
        if mask:
            self.masks[key] = mask
        else:
            del self.masks[key]
