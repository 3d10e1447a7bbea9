"""Cache changes on their way to routers: what they come to, and the last of them for those who were away."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ...core.blocks import BlockKey
from ..pages import KvChange, KvOp, Medium

KEPT_KEYS = 16_384


def net(changes: Iterable[KvChange]) -> list[KvChange]:
    """The shortest list with the same effect. It never holds more keys than the cache gained and lost in all."""
    cleared = False
    lasts: dict[Medium, dict[BlockKey, KvOp]] = {medium: {} for medium in Medium}
    for change in changes:
        if change.op is KvOp.CLEARED:
            cleared = True
            for last in lasts.values():
                last.clear()
            continue
        last = lasts[change.medium]
        for key in change.keys:
            # A key is stored only when absent and removed only when present, so opposites cancel.
            if last.get(key, change.op) is change.op:
                last[key] = change.op
            else:
                del last[key]
    result = [KvChange(KvOp.CLEARED, [])] if cleared else []
    for op in (KvOp.REMOVED, KvOp.STORED):
        for medium, last in lasts.items():
            keys = [key for key, kind in last.items() if kind is op]
            if keys:
                result.append(KvChange(op, keys, medium))
    return result


def count_keys(changes: Iterable[KvChange]) -> int:
    return sum(len(change.keys) for change in changes)


class ChangeLog:
    """The changes of the latest reports, up to KEPT_KEYS keys, and all keys stored on each medium."""

    def __init__(self) -> None:
        self.stored: dict[Medium, dict[BlockKey, None]] = {medium: {} for medium in Medium}
        self._since = 0
        self._kept = 0
        self._entries: deque[tuple[int, list[KvChange]]] = deque()

    def add(self, sequence: int, changes: list[KvChange]) -> None:
        """Takes the changes of report `sequence`."""
        if not changes:
            return
        for change in changes:
            if change.op is KvOp.CLEARED:
                for stored in self.stored.values():
                    stored.clear()
            elif change.op is KvOp.STORED:
                self.stored[change.medium].update(dict.fromkeys(change.keys))
            else:
                for key in change.keys:
                    del self.stored[change.medium][key]
        self._entries.append((sequence, changes))
        self._kept += count_keys(changes)
        while self._kept > KEPT_KEYS:
            self._since, dropped = self._entries.popleft()
            self._kept -= count_keys(dropped)

    def after(self, sequence: int) -> list[KvChange] | None:
        """What changed after report `sequence`; None when that is no longer known."""
        if sequence < self._since:
            return None
        return net(change for at, changes in self._entries if at > sequence for change in changes)
