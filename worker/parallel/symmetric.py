"""Small sums in one shot over memory that all devices of a node can read (torch's symmetric memory; NVLink).

Each rank shows its summand and reads everybody's: one launch, and one round of flags where a ring takes several. It
reads as many times the data as there are ranks, so longer tensors stay with NCCL. The interface is young in torch,
which is why it is asked for by a flag; where the devices cannot, all ranks agree on NCCL and say so.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from .tensor_group import DistributedGroup, TensorGroup

log = logging.getLogger(__name__)

MOST_BYTES = 256 << 10
ALIGNMENT = 16  # bytes that the kernel moves at a time
TYPES = (torch.bfloat16, torch.float32)


class SymmetricGroup:
    """A DistributedGroup whose small sums take the short way."""

    def __init__(self, group: DistributedGroup, device: torch.device) -> None:
        """All ranks of the group call this. Raises RuntimeError where it cannot be."""
        from torch.distributed import _symmetric_memory as symmetric_memory

        self._group = group
        self._name = group.group.group_name
        self._buffers = {
            dtype: symmetric_memory.empty(MOST_BYTES // dtype.itemsize, dtype=dtype, device=device) for dtype in TYPES
        }
        for buffer in self._buffers.values():
            symmetric_memory.rendezvous(buffer, self._name)

    @property
    def beneath(self) -> DistributedGroup:
        """The group that does without."""
        return self._group

    def all_reduce(self, x: Tensor) -> Tensor:
        size = x.numel() * x.element_size()
        buffer = self._buffers.get(x.dtype)
        if buffer is None or not 0 < size <= MOST_BYTES or size % ALIGNMENT:
            return self._group.all_reduce(x)
        mine = buffer[: x.numel()]
        mine.copy_(x.view(-1))
        _one_shot(mine, self._name, x.view(-1))
        return x

    def gather(self, x: Tensor) -> Tensor | None:
        return self._group.gather(x)

    def close(self) -> None:
        self._buffers.clear()
        self._group.close()


def _one_shot(mine: Tensor, name: str, out: Tensor) -> None:
    torch.ops.symm_mem.one_shot_all_reduce_out(mine, "sum", name, out)


def with_symmetric_memory(group: TensorGroup, device: torch.device) -> TensorGroup:
    """The group with short sums where every rank's device can, else the group itself. All its ranks call this."""
    if not isinstance(group, DistributedGroup):
        return group
    made: SymmetricGroup | None = None
    why = "another rank cannot"
    try:
        made = SymmetricGroup(group, device)
    except (RuntimeError, ImportError, AttributeError, NotImplementedError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
    able = group.all_reduce(torch.tensor([0.0 if made is None else 1.0], device=device))
    if made is not None and math.isclose(able.item(), group.size):
        return made
    log.warning("symmetric memory is asked for and cannot be used; NCCL sums instead: %s", why)
    return group
