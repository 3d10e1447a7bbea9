"""Which tensors go through the operations in C."""

from __future__ import annotations

import torch
from torch import Tensor

from . import AVAILABLE, BFLOAT16, FLOAT32

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}


def native_type(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this kind go through these operations."""
    return AVAILABLE and device.type == "cpu" and dtype in KINDS


def native_takes(x: Tensor, *others: Tensor) -> bool:
    """Whether all of them do, as they lie in memory, and are of one type."""
    if not (AVAILABLE and x.is_cpu and x.is_contiguous() and x.dtype in KINDS):
        return False
    return all(other.is_cpu and other.dtype == x.dtype and other.is_contiguous() for other in others)


def native_wide(*tensors: Tensor) -> bool:
    """Whether these are what the operations take as float32, whatever their type: norms' weights, biases, tables."""
    return all(x.is_cpu and x.dtype == torch.float32 and x.is_contiguous() for x in tensors)
