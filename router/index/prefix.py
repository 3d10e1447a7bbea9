"""The exact prefix index: which replica holds how long a prefix, and how near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.blocks import BlockKey
from .holdings import Holdings, Medium
from .slots import Slots
from .speculative import Speculation

VALUE: Mapping[Medium, float] = {Medium.DEVICE: 1.0, Medium.HOST: 0.75, Medium.DISK: 0.5}
"""Share of a page's computation that finding it there saves. To copy a page from host memory takes a small part of the
time in which it is computed; one on disk has to be read first, while its request waits. Between two replicas the nearer
copy wins, and a far copy still beats none: more than that order need not be known here."""


class PrefixIndex:
    """What each replica's cache holds, kept by its KV events; and what it is about to hold, as a guess.

    Keys are chained, so a page counts only when all pages before it are there too: `match` values the unbroken run from
    the first key. Nothing here asks the clock: callers pass `now`, in seconds of any one clock.
    """

    def __init__(self) -> None:
        self._slots = Slots()
        self._media = {medium: Holdings() for medium in Medium}
        self._promised = Speculation()

    def __len__(self) -> int:
        """Number of different pages that any replica holds on its device."""
        return len(self._media[Medium.DEVICE])

    def pages(self, replica_id: str, medium: Medium = Medium.DEVICE) -> int:
        """Number of pages that this replica holds there."""
        known = self._slots.known(replica_id)
        return len(self._media[medium].of(self._slots.bit(replica_id))) if known else 0

    def stored(self, replica_id: str, keys: Sequence[BlockKey], medium: Medium = Medium.DEVICE) -> None:
        """The replica holds these pages there from now on."""
        bit = self._slots.bit(replica_id)
        self._media[medium].add(bit, keys)
        if medium is Medium.DEVICE and len(self._promised):
            for key in keys:
                self._promised.settle(bit, key)

    def removed(self, replica_id: str, keys: Sequence[BlockKey], medium: Medium = Medium.DEVICE) -> None:
        """The replica holds these pages there no more; pages it never held are passed over."""
        if self._slots.known(replica_id):
            self._media[medium].remove(self._slots.bit(replica_id), keys)

    def cleared(self, replica_id: str) -> None:
        """The replica holds nothing, and what was on its way is not to be counted on either."""
        if not self._slots.known(replica_id):
            return
        bit = self._slots.bit(replica_id)
        for holdings in self._media.values():
            holdings.clear(bit)
        self._promised.forget(bit)

    def forget(self, replica_id: str) -> None:
        """The replica is gone; its bit goes to the next new one."""
        if self._slots.known(replica_id):
            self.cleared(replica_id)
            self._slots.release(replica_id)

    def promise(self, replica_id: str, keys: Sequence[BlockKey], until: float) -> None:
        """The replica was just sent a prompt with these pages: count on them until they are reported, or `until`."""
        bit = self._slots.bit(replica_id)
        held = self._media[Medium.DEVICE].of(bit)
        self._promised.promise(bit, [key for key in keys if key not in held], until)

    def match(self, keys: Sequence[BlockKey], now: float) -> dict[str, float]:
        """For each replica that holds or awaits the first of `keys`, what its unbroken run of them is worth, in pages.

        Pages on the device count whole; those that lie only further away, from the first such page on, by VALUE.
        """
        self._promised.expire(now)
        masks: Mapping[BlockKey, int] = self._media[Medium.DEVICE].masks
        if len(self._promised):
            masks = _union(keys, masks, self._promised.masks)
        depths = self._walk(keys, masks)
        worth: dict[str, float] = {**depths}
        for medium in (Medium.HOST, Medium.DISK):
            lower = self._media[medium].masks
            if not lower:
                continue
            masks = _union(keys, masks, lower)
            deeper = self._walk(keys, masks)
            for name, depth in deeper.items():
                worth[name] = worth.get(name, 0.0) + VALUE[medium] * (depth - depths.get(name, 0))
            depths = deeper
        return worth

    def _walk(self, keys: Sequence[BlockKey], masks: Mapping[BlockKey, int]) -> dict[str, int]:
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


def _union(
    keys: Sequence[BlockKey], one: Mapping[BlockKey, int], other: Mapping[BlockKey, int]
) -> Mapping[BlockKey, int]:
    return {key: one.get(key, 0) | other.get(key, 0) for key in keys}
