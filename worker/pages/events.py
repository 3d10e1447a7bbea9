"""What changed in the cache, in order, for those who keep a copy of the index."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ...core.blocks import BlockKey


class KvOp(IntEnum):
    """Kinds of change."""

    STORED = 0
    REMOVED = 1
    CLEARED = 2


class KvChange(NamedTuple):
    """A run of changes of one kind. `keys` is empty for CLEARED."""

    op: KvOp
    keys: list[BlockKey]


class KvEvents:
    """Collects changes until `drain`. Neighbours of one kind share a KvChange."""

    def __init__(self) -> None:
        self._changes: list[KvChange] = []

    def stored(self, key: BlockKey) -> None:
        self._add(KvOp.STORED, key)

    def removed(self, key: BlockKey) -> None:
        self._add(KvOp.REMOVED, key)

    def cleared(self) -> None:
        """Everything before is forgotten: whoever replays from here starts from nothing."""
        self._changes = [KvChange(KvOp.CLEARED, [])]

    def drain(self) -> list[KvChange]:
        """The changes since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def _add(self, op: KvOp, key: BlockKey) -> None:
        if self._changes and self._changes[-1].op is op:
            self._changes[-1].keys.append(key)
        else:
            self._changes.append(KvChange(op, [key]))
