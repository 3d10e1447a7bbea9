"""Every reader gets every message, in order, whatever its size; nobody spins; a stalled reader is an error in time."""

import threading
import time
from pathlib import Path

import pytest

from headway.worker.group.ring import CAPACITY, RingMemory, RingReader, RingWriter


@pytest.fixture
def ring_of():
    made: list[RingMemory] = []

    def make(readers: int, capacity: int = CAPACITY) -> RingMemory:
        made.append(RingMemory.make(readers, capacity))
        return made[-1]

    yield make
    for memory in made:
        memory.close()


def messages() -> list[bytes]:
    """Empty, small, as long as the ring, three times as long, and enough of them to wrap many times."""
    sizes = [0, 1, 100, 4096, 12288, *range(50, 250)]
    return [bytes((size + at) % 256 for at in range(size)) for size in sizes]


def test_every_reader_gets_all_in_order(ring_of):
    memory = ring_of(3, capacity=4096)
    writer, sent = RingWriter(memory), messages()
    got: list[list[bytes]] = [[], [], []]

    def read(which: int) -> None:
        reader = RingReader(which, memory.memory, memory.events[which])
        for _ in sent:
            got[which].append(reader.read())
        reader.mark(7)
        reader.close()

    threads = [threading.Thread(target=read, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for message in sent:
        writer.write(message, timeout_s=30)
    for thread in threads:
        thread.join()
    assert got == [sent, sent, sent]
    assert [writer.mark(reader) for reader in range(3)] == [7, 7, 7]
    writer.close()


def test_stalled_reader_is_an_error(ring_of):
    writer = RingWriter(ring_of(1, capacity=4096))
    with pytest.raises(TimeoutError):
        writer.write(bytes(5000), timeout_s=0.05)
    writer.close()


def test_waiting_reader_costs_no_cpu(ring_of):
    memory = ring_of(1)
    reader, writer = RingReader(0, memory.memory, memory.events[0]), RingWriter(memory)
    used: list[float] = []

    def read() -> None:
        start = time.thread_time()
        assert reader.read() == b"wake"
        used.append(time.thread_time() - start)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.5)
    writer.write(b"wake", timeout_s=1)
    thread.join()
    assert used[0] < 0.1, "of half a second of waiting"
    reader.close()
    writer.close()


def test_the_memory_has_no_name(ring_of):
    memory = ring_of(1)
    assert str(Path(f"/proc/self/fd/{memory.memory}").readlink()).startswith("/memfd:")
