"""Plans to all ranks of a group: by the ring to those beside the leader, by ZeroMQ to those on other nodes."""

from __future__ import annotations

from collections.abc import Sequence

from .nodes.channels import PlanSender
from .ring import RingMemory, RingWriter


class Fanout:
    """One thread writes. `beside` is not empty: the first rank always is beside its leader."""

    def __init__(self, beside: Sequence[int], far: PlanSender | None) -> None:
        self._memory = RingMemory.make(len(beside))
        self._ring = RingWriter(self._memory)
        self._readers = {rank: reader for reader, rank in enumerate(beside)}
        self._far = far
        self._heard: dict[int, tuple[int, int]] = {}

    def write(self, message: bytes, timeout_s: float) -> None:
        """Sends a plan to every rank. Raises TimeoutError when one makes no room in time."""
        if self._far is not None:
            self._far.write(message, timeout_s)  # it has the longer way
        self._ring.write(message, timeout_s)

    def mark(self, rank: int) -> int:
        """The latest step that the rank has said it has done."""
        return self._ring.mark(self._readers[rank]) if rank in self._readers else self._heard.get(rank, (0, 0))[0]

    def note(self, rank: int) -> int:
        """The latest note of the rank."""
        return self._ring.note(self._readers[rank]) if rank in self._readers else self._heard.get(rank, (0, 0))[1]

    def heard(self, rank: int, mark: int, note: int) -> None:
        """What a rank on another node says of itself."""
        self._heard[rank] = mark, note

    def share(self, rank: int) -> tuple[int, list[int]]:
        """Which reader of the ring the rank is, and the descriptors that it needs."""
        reader = self._readers[rank]
        return reader, [self._memory.memory, self._memory.events[reader]]

    def close(self) -> None:
        """Of the other nodes' sockets their owner takes care."""
        self._ring.close()
        self._memory.close()
