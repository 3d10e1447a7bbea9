"""What the interpreter gets wrong of fp8."""

from __future__ import annotations

import torch
from torch import Tensor


def same_fp8(found: Tensor, wanted: Tensor) -> bool:
    """Whether both are the same but for one step of rounding, and for values that are rounded up to a power of two: of
    those the interpreter loses the carry into the exponent."""
    ours, theirs = found.float(), wanted.float()
    carried = torch.frexp(theirs).mantissa.abs() == 0.5
    near = (ours - theirs).abs() <= torch.maximum(theirs.abs() / 8, torch.tensor(2.0**-9))
    return bool((near | carried).all()) and bool((~carried).any() or not len(theirs))
