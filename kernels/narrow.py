"""int8 and fp8 (e4m3): how the last dimension of something is taken to them, each with a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import jit, tl

INT8_LARGEST = 127.0
FP8_LARGEST = 448.0  # of e4m3


def quantize_heads(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`x` [..., head_dim] as `dtype` (int8 or float8_e4m3fn), and the scale [...] float32 that gives it back."""
    scale = x.float().abs().amax(-1).clamp_(min=1e-20) / _largest(dtype)
    return quantize_by(x, scale.unsqueeze(-1), dtype), scale


def quantize_by(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`x / scale` as `dtype`; what is too large becomes the largest."""
    narrow = x.float() / scale
    if dtype == torch.int8:
        narrow = narrow.round()
    return narrow.clamp_(-_largest(dtype), _largest(dtype)).to(dtype)


def _largest(dtype: torch.dtype) -> float:
    return INT8_LARGEST if dtype == torch.int8 else FP8_LARGEST


@jit
def scale_of(wide: tl.tensor, INT8: tl.constexpr) -> tl.tensor:
    """The scale of one vector of float32, as `quantize_heads` finds it."""
    LARGEST: tl.constexpr = 127.0 if INT8 else 448.0
    return tl.maximum(tl.max(tl.abs(wide), 0), 1e-20) / LARGEST


@jit
def narrowed(wide: tl.tensor, scale: tl.tensor, INT8: tl.constexpr) -> tl.tensor:
    """What `quantize_by` gives, still as float32."""
    LARGEST: tl.constexpr = 127.0 if INT8 else 448.0
    wide = wide / scale
    if INT8:
        # Half away from zero; ties to even, as torch rounds, are rare and no better.
        wide = tl.where(wide >= 0, tl.floor(wide + 0.5), tl.ceil(wide - 0.5))
    return tl.minimum(tl.maximum(wide, -LARGEST), LARGEST)
