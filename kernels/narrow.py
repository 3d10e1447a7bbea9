"""int8 and fp8 (e4m3): how the last dimension of something is taken to them, each with a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import jit, tl

INT8_LARGEST = 127.0
FP8_LARGEST = 448.0  # of e4m3


def quantize_heads(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`x` [..., head_dim] as `dtype` (int8 or float8_e4m3fn), and the scale [...] float32 that gives it back."""
    largest = INT8_LARGEST if dtype == torch.int8 else FP8_LARGEST
    wide = x.float()
    scale = wide.abs().amax(-1).clamp_(min=1e-20) / largest
    narrow = wide / scale.unsqueeze(-1)
    if dtype == torch.int8:
        narrow = narrow.round()
    return narrow.clamp_(-largest, largest).to(dtype), scale


@jit
def narrowed(wide: tl.tensor, INT8: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The same of one vector of float32, still as float32, and its scale."""
    LARGEST: tl.constexpr = 127.0 if INT8 else 448.0
    scale = tl.maximum(tl.max(tl.abs(wide), 0), 1e-20) / LARGEST
    wide = wide / scale
    if INT8:
        # Half away from zero; ties to even, as torch rounds, are rare and no better.
        wide = tl.where(wide >= 0, tl.floor(wide + 0.5), tl.ceil(wide - 0.5))
    return tl.minimum(tl.maximum(wide, -LARGEST), LARGEST), scale
