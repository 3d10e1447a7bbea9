"""RMS norms with their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.native.tensors import native_type
from ...kernels.rms_norm import add_rms_norm, rms_norm
from .weights import WeightReader


class Norm:
    """`x / rms(x) * weight` over the last dimension. weight: [size], of the model's type or float32: where
    norms are C's it is kept as float32, which they want."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight.float() if native_type(weight.device, weight.dtype) else weight
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[..., size] to the same."""
        return rms_norm(x, self.weight, self.eps)

    def add(self, x: Tensor | None, residual: Tensor) -> Tensor:
        """Adds `x`, where there is one, into `residual` in place, and returns the norm of the sum."""
        return self(residual) if x is None else add_rms_norm(x, residual, self.weight, self.eps)


def read_norm(weights: WeightReader, name: str, size: int, eps: float) -> Norm:
    """The norm whose weights are stored as they are used."""
    return Norm(weights.vector(f"{name}.weight", size), eps)


def read_offset_norm(weights: WeightReader, name: str, size: int, eps: float) -> Norm:
    """Gemma's: what is stored is the weight less 1, and products are taken in float32."""
    return Norm(weights.vector(f"{name}.weight", size).to(torch.float32).add_(1.0), eps)
