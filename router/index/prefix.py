"""The exact prefix index: block key -> the replicas that hold its page, as bits of an int."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.blocks import BlockKey
from .slots import Slots
from .speculative import Speculation


class PrefixIndex:
    """What each replica's cache holds, kept by its KV events; and what it is about to hold, as a guess.

    Keys are chained, so a page counts only when all pages before it are there too: `match` gives the depth of the
    unbroken run from the first key. Nothing here asks the clock: callers pass `now`, in seconds of any one clock.
    """

    def __init__(self) -> None:
        self._slots = Slots()
        self._masks: dict[BlockKey, int] = {}
        self._held: dict[int, set[BlockKey]] = {}
        self._promised = Speculation()

    def __len__(self) -> int:
        """Number of different pages that any replica holds."""
        return len(self._masks)

    def pages(self, replica_id: str) -> int:
        """Number of pages that this replica holds."""
        return len(self._held.get(self._slots.bit(replica_id), ())) if self._slots.known(replica_id) else 0

    def stored(self, replica_id: str, keys: Sequence[BlockKey]) -> None:
        """The replica holds these pages from now on."""
        bit = self._slots.bit(replica_id)
        masks, promised = self._masks, self._promised
        self._held.setdefault(bit, set()).update(keys)
        for key in keys:
            masks[key] = masks.get(key, 0) | bit
        if len(promised):
            for key in keys:
                promised.settle(bit, key)

    def removed(self, replica_id: str, keys: Sequence[BlockKey]) -> None:
        """The replica holds these pages no more; pages it never held are passed over."""
        if not self._slots.known(replica_id):
            return
        bit = self._slots.bit(replica_id)
        held = self._held.get(bit)
        if not held:
            return
        for key in keys:
            if key in held:
                held.remove(key)
                self._unmark(bit, key)

    def cleared(self, replica_id: str) -> None:
        """The replica holds nothing, and what was on its way is not to be counted on either."""
        if not self._slots.known(replica_id):
            return
        bit = self._slots.bit(replica_id)
        for key in self._held.pop(bit, ()):
            self._unmark(bit, key)
        self._promised.forget(bit)

    def forget(self, replica_id: str) -> None:
        """The replica is gone; its bit goes to the next new one."""
        if self._slots.known(replica_id):
            self.cleared(replica_id)
            self._slots.release(replica_id)

    def promise(self, replica_id: str, keys: Sequence[BlockKey], until: float) -> None:
        """The replica was just sent a prompt with these pages: count on them until they are reported, or `until`."""
        bit = self._slots.bit(replica_id)
        held = self._held.get(bit, set())
        self._promised.promise(bit, [key for key in keys if key not in held], until)

    def match(self, keys: Sequence[BlockKey], now: float) -> dict[str, int]:
        """For each replica that holds or awaits the first of `keys`, how many of them it has without a break."""
        promised = self._promised
        promised.expire(now)
        masks = self._masks
        if not len(promised):
            return self._walk(keys, masks)
        awaited = promised.masks
        return self._walk(keys, {key: masks.get(key, 0) | awaited.get(key, 0) for key in keys})

    def _walk(self, keys: Sequence[BlockKey], masks: dict[BlockKey, int]) -> dict[str, int]:
        depths: dict[str, int] = {}
        alive = -1  # all replicas, known or not
        for depth, key in enumerate(keys):
            still = alive & masks.get(key, 0)
            if still != alive:
                if depth:
                    for name in self._slots.names(alive & ~still):
                        depths[name] = depth
                alive = still
                if not alive:
                    return depths
        if keys:
            for name in self._slots.names(alive):
                depths[name] = len(keys)
        return depths

    def _unmark(self, bit: int, key: BlockKey) -> None:
        mask = self._masks[key] & ~bit
        if mask:
            self._masks[key] = mask
        else:
            del self._masks[key]
