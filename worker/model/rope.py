"""Inverse frequencies of the rotary embedding, with the scalings that stretch a context."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """[head_dim / 2] float32, of a kind that `read_config` let through."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        return _llama3(frequencies, rope)
    return frequencies


def _llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Long waves are stretched by `factor`, short ones kept, those between blended (Llama 3.1)."""
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    waves_in_context = rope.original_context * frequencies / (2 * math.pi)
    blend = (waves_in_context - low) / (high - low)
    between = (1 - blend) * frequencies / rope.factor + blend * frequencies
    scaled = torch.where(waves_in_context < low, frequencies / rope.factor, between)
    return torch.where(waves_in_context > high, frequencies, scaled)
