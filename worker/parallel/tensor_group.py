"""The ranks that share each layer: sums and gathers among them."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import RankLost


class TensorGroup(Protocol):
    """Collectives over the slices of one stage. Each rank gets the same bits, summed in the order of ranks."""

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over ranks, in place; returns `x`. Raises RankLost."""
        ...

    def gather(self, x: Tensor) -> Tensor | None:
        """The ranks' `x` side by side along the last dimension, on rank 0 of the group; None on the others."""
        ...

    def close(self) -> None:
        """Lets go of what the group holds."""
        ...


class SoloGroup:
    """A group of one."""

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: Tensor) -> Tensor | None:
        return x

    def close(self) -> None:
        return None


class DistributedGroup:
    """Collectives of torch.distributed: NCCL on CUDA, gloo where there is no shared memory to use.

    gloo's and NCCL's sums reach all ranks as the same bits: each element is summed once and then sent around. In what
    order depends on where it stands and on how many there are, unless sums are `ordered`: then every rank gets all
    terms and adds them up itself.
    """

    def __init__(self, group: dist.ProcessGroup, first: int, size: int, rank: int) -> None:
        self.group = group
        self.first = first
        self.size = size
        self.rank = rank
        self.ordered = False

    def all_reduce(self, x: Tensor) -> Tensor:
        try:
            if self.ordered:
                return self._ordered_sum(x)
            dist.all_reduce(x, group=self.group)
        except RuntimeError as error:
            raise RankLost(f"all-reduce in ranks {self.first} to {self.first + self.size - 1}: {error}") from error
        return x

    def _ordered_sum(self, x: Tensor) -> Tensor:
        terms = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(terms, x, group=self.group)
        x.copy_(terms[0])
        for term in terms[1:]:
            x += term
        return x

    def gather(self, x: Tensor) -> Tensor | None:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else None
        try:
            dist.gather(x, parts, dst=self.first, group=self.group)
        except RuntimeError as error:
            raise RankLost(f"gather in ranks {self.first} to {self.first + self.size - 1}: {error}") from error
        return None if parts is None else torch.cat(parts, -1)

    def close(self) -> None:
        return None
