"""Operations in C for float32 on CPU, where torch's own cost more in calls and copies than in arithmetic.

The extension is built when the package is installed and there is a C compiler; without it, or with
HEADWAY_NATIVE_KERNELS=0, every operation goes by its torch reference. The functions of `_native` take addresses: their
callers, beside each operation's public function, see to types, shapes and contiguity; pages, slots and positions are
checked in C.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..launch import INTERPRETED

if TYPE_CHECKING:
    from . import _native as native

    BUILT = True
else:
    try:
        from . import _native as native

        BUILT = True
    except ImportError:
        native = None
        BUILT = False

AVAILABLE = BUILT and os.environ.get("HEADWAY_NATIVE_KERNELS") != "0" and not INTERPRETED
LANES = 16

__all__ = ["AVAILABLE", "BUILT", "LANES", "instruction_set", "native", "native_takes", "native_type"]


def instruction_set() -> str | None:
    """The best that this processor has of those that the operations are compiled for; None where they do not run."""
    return native.instruction_sets()[0] if AVAILABLE else None


def native_type(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this kind go through these operations."""
    return AVAILABLE and device.type == "cpu" and dtype == torch.float32


def native_takes(*tensors: Tensor) -> bool:
    """Whether all of them do, as they lie in memory."""
    return AVAILABLE and all(x.is_cpu and x.dtype == torch.float32 and x.is_contiguous() for x in tensors)
