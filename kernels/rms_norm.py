"""Root-mean-square normalisation, with the residual added first where there is one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, computed in float32.

    x: [tokens, hidden], weight: [hidden] of the same dtype. Returns [tokens, hidden] in the dtype of `x`.
    """
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Adds `x` into `residual` in place, and returns the norm of the sum.

    x, residual: [tokens, hidden] of one dtype, weight: [hidden]. Returns [tokens, hidden].
    """
    residual.add_(x)
    return rms_norm(residual, weight, eps)


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The definition, word for word."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight
