"""A small number for each replica, so that a set of replicas is the bits of one int."""

from __future__ import annotations

from collections.abc import Iterator


class Slots:
    """Replica ids to bit numbers and back. A forgotten replica's bit is given to the next new one."""

    def __init__(self) -> None:
        self._slot: dict[str, int] = {}
        self._name: dict[int, str] = {}
        self._free: list[int] = []

    def bit(self, replica_id: str) -> int:
        """The mask of this replica alone; a new replica gets one."""
        slot = self._slot.get(replica_id)
        if slot is None:
            slot = self._free.pop() if self._free else len(self._slot)
            self._slot[replica_id] = slot
            self._name[slot] = replica_id
        return 1 << slot

    def known(self, replica_id: str) -> bool:
        return replica_id in self._slot

    def release(self, replica_id: str) -> None:
        """Takes the bit back. The caller has cleared it everywhere."""
        slot = self._slot.pop(replica_id)
        del self._name[slot]
        self._free.append(slot)

    def names(self, mask: int) -> Iterator[str]:
        """The replicas in `mask`."""
        while mask:
            lowest = mask & -mask
            yield self._name[lowest.bit_length() - 1]
            mask ^= lowest
