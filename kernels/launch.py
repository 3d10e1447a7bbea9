"""Where the Triton kernels run: on CUDA tensors, and, for proofs without a GPU, in Triton's interpreter.

Triton is optional: without it every operation goes by its torch reference, on whatever device. The interpreter is on
when TRITON_INTERPRET=1 is set before this module is first imported; then CPU tensors go through the kernels too.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import triton
    import triton.language as tl

    AVAILABLE = True
else:
    try:
        import triton
        import triton.language as tl

        AVAILABLE = True
    except ImportError:
        triton = tl = None
        AVAILABLE = False

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

__all__ = [
    "AVAILABLE", "INTERPRETED", "constant", "expect_contiguous", "jit", "moved", "power_of_two", "roomy", "runs_on",
    "takes", "tl", "triton",
]  # fmt: skip


# Numbers that change from step to step, and on which no wide load depends: a kernel that were compiled anew for those
# that happen to be 1, or a multiple of 16, would hold up the step that brings the first of them.
ANY_NUMBER = ("first", "held", "parts", "rows", "table_width", "total", "window")


def jit(function: Any) -> Any:
    """`triton.jit`, or the bare function where there is no Triton: nobody calls it then."""
    return triton.jit(function, do_not_specialize=ANY_NUMBER) if AVAILABLE else function


def constant(value: Any) -> Any:
    """A number of this module's kind that kernels may use by its name."""
    return tl.constexpr(value) if AVAILABLE else value


def takes(x: Tensor) -> bool:
    """Whether an operation on `x` goes through its Triton kernel."""
    return AVAILABLE and (x.is_cuda or INTERPRETED)


def runs_on(device: torch.device) -> bool:
    """The same, before there is a tensor."""
    return AVAILABLE and (device.type == "cuda" or INTERPRETED)


ROOMY = (9, 10)  # first numbers of the capabilities of Hopper, and of Blackwell in data centres


@cache
def roomy(device: torch.device) -> bool:
    """Whether a program there has 227 KiB of shared memory, and products that take operands from it, past registers."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in ROOMY


def expect_contiguous(**tensors: Tensor) -> None:
    """Raises ValueError for the first of them that does not lie in one piece, row after row, as kernels read it."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()} for {tuple(tensor.shape)}")


def moved(host: Tensor, device: torch.device) -> Tensor:
    """`host` on `device`, by way of pinned memory: a copy from elsewhere waits for all that the device has to do."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def power_of_two(value: int) -> int:
    """The least power of two that is not below `value`, which is above zero."""
    return 1 << (value - 1).bit_length()


def half_type(dtype: torch.dtype) -> bool:
    """Whether matrix units take it as it is."""
    return dtype in (torch.float16, torch.bfloat16)
