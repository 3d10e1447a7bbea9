"""Which adapter lies in which slot: decided here, on the leader, and told to the ranks with each plan."""

from __future__ import annotations

from collections import Counter, OrderedDict

from ..plan import FORGET, NO_ADAPTER

BASE = 0
"""The number of no adapter: the model itself. Adapters count from 1."""


class AdapterSlots:
    """A fixed number of slots. An adapter stays in its slot until another one needs it: the least recently used adapter
    goes first, and one that a running row uses never."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count - 1, -1, -1))
        # Slot by adapter. Of those without a row, the least recently used comes first.
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._rows: Counter[int] = Counter()
        self._changes: list[tuple[int, int]] = []

    def available(self, adapter: int) -> bool:
        """Whether a row with this adapter could enter now."""
        return adapter == BASE or adapter in self._slots or bool(self._free) or self._idle() is not None

    def enter(self, adapter: int) -> int:
        """A row with this adapter enters the batch: its slot, which holds the adapter from the next plan on."""
        if adapter == BASE:
            return NO_ADAPTER
        if adapter not in self._slots:
            self._slots[adapter] = self._empty_slot()
            self._changes.append((self._slots[adapter], adapter))
        self._rows[adapter] += 1
        return self._slots[adapter]

    def leave(self, adapter: int) -> None:
        """A row with this adapter leaves the batch."""
        if adapter != BASE:
            self._rows[adapter] -= 1
            self._slots.move_to_end(adapter)

    def forget(self, adapter: int) -> None:
        """The adapter is gone for good; no row uses it and none will."""
        assert not self._rows.pop(adapter, 0), "a running row uses it"
        slot = self._slots.pop(adapter, None)
        if slot is not None:
            self._free.append(slot)
        self._changes.append((FORGET, adapter))

    def drain(self) -> list[tuple[int, int]]:
        """(slot, adapter) for the next plan, in the order in which they were decided."""
        changes, self._changes = self._changes, []
        return changes

    def _idle(self) -> int | None:
        return next((adapter for adapter in self._slots if not self._rows[adapter]), None)

    def _empty_slot(self) -> int:
        if self._free:
            return self._free.pop()
        idle = self._idle()
        assert idle is not None, "asked for before `available`"
        return self._slots.pop(idle)
