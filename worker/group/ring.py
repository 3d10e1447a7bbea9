"""A ring in shared memory: one writer, N readers, each of which gets every message in order.

The memory is an anonymous file (memfd) and each reader sleeps on an eventfd of its own; both are handed to the reader's
process as file descriptors. So nothing has a name that could stay behind, an idle reader costs no CPU, and the kernel's
read of the eventfd orders the memory accesses on every architecture: a reader looks at the head only after a wake-up.

A message is its length (u32) and its bytes, as a stream through the ring: one that is longer than the ring passes too,
because the writer goes on as readers make room.

    page 0      u64 head, then for each reader, 64 bytes apart: u64 tail, u64 mark, u64 note (see `RingReader`)
    the rest    `capacity` bytes
"""

from __future__ import annotations

import mmap
import os
import select
import time
from typing import NamedTuple

HEADER = 4096
CAPACITY = 1 << 20
MAX_READERS = HEADER // 64 - 1
SPIN_S = 30e-6
_WORDS = 8  # words of 8 bytes between what different processes write: one cache line


class _Mapping:
    """The shared memory, mapped. Words are read and written whole."""

    def __init__(self, memory_fd: int) -> None:
        self._map = mmap.mmap(memory_fd, 0)
        self._view = memoryview(self._map)
        self.words = self._view[:HEADER].cast("Q")
        self.data = self._view[HEADER:]
        self.capacity = len(self.data)

    def close(self) -> None:
        self.words.release()
        self.data.release()
        self._view.release()
        self._map.close()


class RingMemory(NamedTuple):
    """Descriptors of a ring: the memory, and each reader's wake-up. They are copied into other processes."""

    memory: int
    events: list[int]

    @staticmethod
    def make(readers: int, capacity: int = CAPACITY) -> RingMemory:
        """A new ring, owned by the caller."""
        if not 1 <= readers <= MAX_READERS:
            raise ValueError(f"a ring has 1 to {MAX_READERS} readers, got {readers}")
        memory = os.memfd_create("headway-ring", os.MFD_CLOEXEC)
        os.ftruncate(memory, HEADER + capacity)
        return RingMemory(memory, [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(readers)])

    def close(self) -> None:
        for fd in (self.memory, *self.events):
            os.close(fd)


class RingWriter:
    """The writing end. Uses the descriptors, which stay the caller's, until closed."""

    def __init__(self, ring: RingMemory) -> None:
        self._events = ring.events
        self._readers = len(ring.events)
        self._mapping = _Mapping(ring.memory)
        self._head = 0

    def mark(self, reader: int) -> int:
        """The latest number that the reader marked."""
        return self._mapping.words[(reader + 1) * _WORDS + 1]

    def note(self, reader: int) -> int:
        """The latest note of the reader."""
        return self._mapping.words[(reader + 1) * _WORDS + 2]

    def write(self, message: bytes, timeout_s: float) -> None:
        """Sends a message. Raises TimeoutError when a reader makes no room in time."""
        deadline = time.monotonic() + timeout_s
        self._put(memoryview(len(message).to_bytes(4, "little") + message), deadline)

    def _put(self, data: memoryview, deadline: float) -> None:
        ring = self._mapping
        while data:
            room = ring.capacity - (self._head - self._slowest())
            if not room:
                if time.monotonic() > deadline:
                    raise TimeoutError("a reader of the step ring makes no room")
                time.sleep(0.0002)
                continue
            at = self._head % ring.capacity
            count = min(len(data), room, ring.capacity - at)
            ring.data[at : at + count] = data[:count]
            data = data[count:]
            self._head += count
            if not data or room == count:
                self._publish()
        self._publish()

    def _slowest(self) -> int:
        return min(self._mapping.words[(reader + 1) * _WORDS] for reader in range(self._readers))

    def _publish(self) -> None:
        if self._mapping.words[0] != self._head:
            self._mapping.words[0] = self._head
            for event in self._events:
                os.eventfd_write(event, 1)

    def close(self) -> None:
        self._mapping.close()


class RingReader:
    """The end of reader number `reader`. Uses the descriptors, which stay the caller's, until closed."""

    def __init__(self, reader: int, memory_fd: int, event_fd: int) -> None:
        self._word = (reader + 1) * _WORDS
        self._event = event_fd
        self._mapping = _Mapping(memory_fd)
        self._poll = select.poll()
        self._poll.register(event_fd, select.POLLIN)
        self._head = self._tail = self._mapping.words[self._word]

    @property
    def waiting(self) -> bool:
        """Whether a message has come that was not read. It may be a moment old when it says that none has."""
        return self._mapping.words[0] != self._tail

    def read(self) -> bytes:
        """The next message. Blocks until there is one."""
        return self._get(int.from_bytes(self._get(4), "little"))

    def mark(self, number: int) -> None:
        """Tells the writer how far this reader's own work is."""
        self._mapping.words[self._word + 1] = number

    def note(self, number: int) -> None:
        """Tells the writer something else, from any thread."""
        self._mapping.words[self._word + 2] = number

    def _get(self, count: int) -> bytes:
        ring = self._mapping
        parts = bytearray()
        while len(parts) < count:
            if self._head == self._tail:
                self._wait()
                self._head = ring.words[0]
                continue
            at = self._tail % ring.capacity
            size = min(count - len(parts), self._head - self._tail, ring.capacity - at)
            parts += ring.data[at : at + size]
            self._tail += size
            ring.words[self._word] = self._tail
        return bytes(parts)

    def _wait(self) -> None:
        """Until the writer has published: a moment by asking again and again, then asleep."""
        deadline = time.perf_counter() + SPIN_S
        while True:
            try:
                os.eventfd_read(self._event)
                return
            except BlockingIOError:
                if time.perf_counter() > deadline:
                    self._poll.poll()

    def close(self) -> None:
        self._mapping.close()
