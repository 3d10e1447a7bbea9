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


class Medium(IntEnum):
    """Where a page lies, the nearest first. A page may lie on several of them."""

    DEVICE = 0
    HOST = 1
    DISK = 2


class KvChange(NamedTuple):
    """A run of changes of one kind on one medium. CLEARED has no keys, and is of all media."""

    op: KvOp
    keys: list[BlockKey]
    medium: Medium = Medium.DEVICE


class KvEvents:
    """Collects changes until `drain`. Neighbours of one kind and medium share a KvChange."""

    def __init__(self) -> None:
        self._changes: list[KvChange] = []

    def __bool__(self) -> bool:
        """Whether `drain` would give any."""
        return bool(self._changes)

    def stored(self, key: BlockKey, medium: Medium = Medium.DEVICE) -> None:
        self._add(KvOp.STORED, key, medium)

    def removed(self, key: BlockKey, medium: Medium = Medium.DEVICE) -> None:
        self._add(KvOp.REMOVED, key, medium)

    def cleared(self) -> None:
        """Everything before is forgotten: whoever replays from here starts from nothing."""
        self._changes = [KvChange(KvOp.CLEARED, [])]

    def drain(self) -> list[KvChange]:
        """The changes since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def _add(self, op: KvOp, key: BlockKey, medium: Medium) -> None:
        last = self._changes[-1] if self._changes else None
        if last is not None and last.op is op and last.medium is medium:
            last.keys.append(key)
        else:
            self._changes.append(KvChange(op, [key], medium))
