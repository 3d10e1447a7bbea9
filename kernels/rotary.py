"""Rotary position embedding in the half-rotated layout of Hugging Face checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(
    inverse_frequencies: Tensor, positions: int, dtype: torch.dtype, magnitude: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of every position, each [positions, dims] of `dtype`; angles are taken in float32, and
    both are multiplied by `magnitude`.

    inverse_frequencies: [dims / 2] float32, of the elements of a head that turn. The first half of the sine is negated,
    which turns the rotation into one product and one fused multiply-add over all of them (see `rotate`).
    """
    steps = torch.arange(positions, dtype=torch.float32, device=inverse_frequencies.device)
    angles = torch.outer(steps, inverse_frequencies)
    cos, sin = angles.cos() * magnitude, angles.sin() * magnitude
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Turns the first `dims` elements of each head of `x` by its token's angles; the others stay.

    x: [tokens, heads, head_dim]; cos, signed_sin: [tokens, 1, dims], rows of `rotary_tables`. Returns a new tensor of
    the shape of `x`.
    """
    dims = cos.shape[-1]
    if dims < x.shape[-1]:
        return torch.cat((rotate(x[..., :dims], cos, signed_sin), x[..., dims:]), -1)
    return (x * cos).addcmul_(x.roll(dims // 2, -1), signed_sin)


def rotate_reference(x: Tensor, angles: Tensor) -> Tensor:
    """The definition: pairs (i, i + dims/2) of the first elements turned by angles [tokens, dims / 2]."""
    dims = 2 * angles.shape[-1]
    left, right = x[..., :dims].chunk(2, -1)
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin, x[..., dims:]), -1)
