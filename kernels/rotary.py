"""Rotary position embedding in the half-rotated layout of Hugging Face checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(inverse_frequencies: Tensor, positions: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of every position, each [positions, head_dim] of `dtype`; angles are taken in float32.

    inverse_frequencies: [head_dim / 2] float32. The first half of the sine is negated, which turns the rotation into
    one product and one fused multiply-add over the whole head (see `rotate`).
    """
    steps = torch.arange(positions, dtype=torch.float32, device=inverse_frequencies.device)
    angles = torch.outer(steps, inverse_frequencies)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Turns each head of `x` by its token's angles.

    x: [tokens, heads, head_dim]; cos, signed_sin: [tokens, 1, head_dim], rows of `rotary_tables`. Returns a new tensor
    of the shape of `x`.
    """
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), signed_sin)


def rotate_reference(x: Tensor, angles: Tensor) -> Tensor:
    """The definition: pairs (i, i + head_dim/2) turned by angles [tokens, head_dim / 2]."""
    left, right = x.chunk(2, -1)
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)
