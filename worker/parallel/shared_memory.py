"""Sums and gathers over shared memory, for ranks on one node: microseconds where gloo takes a millisecond.

The memory is a memfd: it has no name in any directory, ranks open it through the creator's /proc entry, and the kernel
frees it when the last of them is gone. No crash at any moment can leave it behind, and no tracker is needed.

Each rank has a sequence flag and two buffers. In operation n it fills buffer n % 2, sets its flag to n, waits until
all flags have reached n, and reads all buffers in the order of ranks. Whoever starts n + 2, and so overwrites the
buffers of n, has seen every flag at n + 1: by then every rank had finished reading n.
"""

from __future__ import annotations

import mmap
import os
import platform
import time
from typing import Protocol

import torch
from torch import Tensor

from ...kernels.native import AVAILABLE
from .errors import RankLost
from .native_group import NativeGroup

LINE = 64  # bytes of a cache line: flags on lines of their own do not disturb each other
CAPACITY = 1 << 20  # bytes of one buffer; longer tensors go in pieces
SPINS = 2000  # looks at the flags before giving the core away, some 100 µs
YIELD_SECONDS = 0.002  # yields for this long, then sleeps
SLEEP_SECONDS = 0.0001
CACHED_VIEWS = 256


class Store(Protocol):
    """The part of a torch.distributed store that the ranks meet through."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...


def supported() -> bool:
    """Plain stores are seen in order by other cores only where the processor promises it, and memfd is Linux."""
    return platform.machine() in ("x86_64", "AMD64") and hasattr(os, "memfd_create")


class SharedMemoryGroup(Protocol):
    """`size` ranks over one mapping. Made by `open_group`."""

    timeout_s: float

    def all_reduce(self, x: Tensor) -> Tensor: ...

    def gather(self, x: Tensor) -> Tensor | None: ...

    def close(self) -> None: ...


class PlainGroup:
    """The ranks' exchange in Python, for where the one in C is not built."""

    def __init__(self, memory: mmap.mmap, rank: int, size: int, capacity: int, timeout_s: float) -> None:
        self.rank = rank
        self.size = size
        self.capacity = capacity
        self.timeout_s = timeout_s
        self.sequence = 0
        self._memory = memory
        self._flags = memoryview(memory)[: size * LINE].cast("q")
        self._others = [peer * (LINE // 8) for peer in range(size) if peer != rank]
        self._spins = SPINS if may_spin(size) else 1
        self._views: dict[tuple[torch.dtype, int], list[list[Tensor]]] = {}

    def all_reduce(self, x: Tensor) -> Tensor:
        flat = x.view(-1)
        step = self.capacity // x.element_size()
        for start in range(0, flat.shape[0], step):
            self._sum(flat[start : start + step] if flat.shape[0] > step else flat)
        return x

    def gather(self, x: Tensor) -> Tensor | None:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else []
        flat = x.view(-1)
        step = self.capacity // x.element_size()
        for start in range(0, flat.shape[0], step):
            piece = flat[start : start + step]
            buffers = self._exchange(piece)
            for part, buffer in zip(parts, buffers, strict=False):
                part.view(-1)[start : start + step].copy_(buffer)
        return torch.cat(parts, -1) if parts else None

    def close(self) -> None:
        """Forgets the mapping; it goes when the last tensor over it does."""
        self._views.clear()
        self._flags.release()

    def _sum(self, x: Tensor) -> None:
        buffers = self._exchange(x)
        if x.dtype in (torch.float32, torch.float64):
            torch.add(buffers[0], buffers[1], out=x)
            for buffer in buffers[2:]:
                x.add_(buffer)
            return
        total = buffers[0].float()  # half types are rounded once, at the end
        for buffer in buffers[1:]:
            total += buffer
        x.copy_(total)

    def _exchange(self, x: Tensor) -> list[Tensor]:
        """Shows `x` to all ranks; returns what each of them shows, in the order of ranks."""
        self.sequence += 1
        buffers = self._buffers(x.dtype, x.shape[0])[self.sequence % 2]
        buffers[self.rank].copy_(x)
        self._flags[self.rank * (LINE // 8)] = self.sequence
        self._wait(self.sequence)
        return buffers

    def _wait(self, sequence: int) -> None:
        flags, spins = self._flags, self._spins
        for peer in self._others:
            for _ in range(spins):
                if flags[peer] >= sequence:
                    break
            else:
                self._wait_slowly(peer, sequence)

    def _wait_slowly(self, peer: int, sequence: int) -> None:
        start = time.monotonic()
        while self._flags[peer] < sequence:
            waited = time.monotonic() - start
            if waited > self.timeout_s:
                rank = peer // (LINE // 8)
                raise RankLost(
                    f"tensor-parallel rank {rank} did not reach operation {sequence} in {self.timeout_s:g} s"
                )
            if waited < YIELD_SECONDS:
                os.sched_yield()
            else:
                time.sleep(SLEEP_SECONDS)

    def _buffers(self, dtype: torch.dtype, count: int) -> list[list[Tensor]]:
        """[parity][rank], views of `count` elements."""
        key = (dtype, count)
        views = self._views.get(key)
        if views is None:
            if len(self._views) >= CACHED_VIEWS:
                self._views.clear()
            views = self._make_views(dtype, count)
            self._views[key] = views
        return views

    def _make_views(self, dtype: torch.dtype, count: int) -> list[list[Tensor]]:
        def view(rank: int, parity: int) -> Tensor:
            offset = self.size * LINE + (rank * 2 + parity) * self.capacity
            return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=offset)

        with torch.inference_mode(False):  # views made inside could not be written to outside
            return [[view(rank, parity) for rank in range(self.size)] for parity in range(2)]


def may_spin(size: int) -> bool:
    """Spinning helps only while every rank has a core to itself."""
    return len(os.sched_getaffinity(0)) >= size


def open_group(store: Store, name: str, rank: int, size: int, timeout_s: float) -> SharedMemoryGroup:
    """All `size` ranks of the group call this; they meet in `store` under `name`. Raises RankLost."""
    length = size * LINE + 2 * size * CAPACITY
    if rank == 0:
        descriptor = os.memfd_create(f"headway-{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, length)
            memory = mmap.mmap(descriptor, length)
            store.set(name, f"/proc/{os.getpid()}/fd/{descriptor}")
            for peer in range(1, size):  # the descriptor must live until all have opened it
                store.get(f"{name}/{peer}")
        finally:
            os.close(descriptor)
    else:
        path = store.get(name).decode()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise RankLost(f"cannot open the group's shared memory: {error}") from error
        try:
            memory = mmap.mmap(descriptor, length)
        finally:
            os.close(descriptor)
        store.set(f"{name}/{rank}", "open")
    if not AVAILABLE:
        return PlainGroup(memory, rank, size, CAPACITY, timeout_s)
    return NativeGroup(memory, rank, size, CAPACITY, timeout_s, spin=may_spin(size))
