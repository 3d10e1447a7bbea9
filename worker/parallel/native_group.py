"""Sums and gathers over shared memory by the exchange in C (kernels/native/exchange.h), without Python's lock."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from ...kernels.native import native
from ...kernels.native.tensors import KINDS
from .errors import RankLost

SPINS = 4000  # looks at a flag before the core is given away, some 100 µs
NEVER = 1


class NativeGroup:
    """`size` ranks over one mapping, as PlainGroup has it in Python: the two could even meet in one group."""

    def __init__(self, memory: mmap.mmap, rank: int, size: int, capacity: int, timeout_s: float, *, spin: bool) -> None:
        self.rank = rank
        self.size = size
        self._memory = torch.frombuffer(memory, dtype=torch.uint8)
        spins = SPINS if spin else NEVER
        self._timeout_s = timeout_s
        self.exchange = native.exchange(self._memory.data_ptr(), rank, size, capacity, spins, timeout_s)

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        self._timeout_s = seconds
        native.set_timeout(self.exchange, seconds)

    def all_reduce(self, x: Tensor) -> Tensor:
        kind = KINDS.get(x.dtype)
        if kind is None:
            return self._sum(x)
        assert x.is_contiguous(), "summed in place"
        self.expect_all(native.sum_over_ranks(self.exchange, x.data_ptr(), x.numel(), kind))
        return x

    def gather(self, x: Tensor) -> Tensor | None:
        return self._gather(x, wanted=self.rank == 0)

    def close(self) -> None:
        """Nothing to do: the mapping goes with the last reference to it."""

    def expect_all(self, lost: int) -> None:
        """Raises RankLost unless the exchange said that all ranks came."""
        if lost >= 0:
            raise RankLost(f"tensor-parallel rank {lost} did not reach an operation in {self._timeout_s:g} s")

    def _gather(self, x: Tensor, *, wanted: bool) -> Tensor | None:
        x = x.contiguous()
        out = x.new_empty((*x.shape[:-1], x.shape[-1] * self.size)) if wanted else None
        width = x.shape[-1] * x.element_size()
        rows = x.numel() // x.shape[-1]
        target = 0 if out is None else out.data_ptr()
        self.expect_all(native.gather_over_ranks(self.exchange, x.data_ptr(), target, rows, width))
        return out

    def _sum(self, x: Tensor) -> Tensor:
        """Of the types that C does not sum."""
        parts = self._gather(x.view(1, -1), wanted=True)
        assert parts is not None
        wide = parts.view(self.size, -1).to(torch.promote_types(x.dtype, torch.float32))
        total = wide[0].clone()
        for part in wide[1:]:
            total += part
        return x.copy_(total.view(x.shape))
