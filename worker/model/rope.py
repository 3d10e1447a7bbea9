"""Rotary position embedding (Su et al., "RoFormer", 2021) with the scalings that stretch a context, one class each."""

from __future__ import annotations

import math

import msgspec
import torch
from torch import Tensor

from ...kernels.native.tensors import native_type
from ...kernels.rotary import rotary_tables


class Rope(msgspec.Struct, frozen=True, kw_only=True):
    """Plain frequencies, theta^(-2i/dims). The first `dims` elements of each head turn."""

    theta: float
    dims: int

    @property
    def reach(self) -> int:
        """Tokens that the scaling stretches the context to; 0 where max_position_embeddings says it."""
        return 0

    def frequencies(self, context: int) -> Tensor:
        """[dims / 2] float32, in radians a position, of a model that serves `context` tokens."""
        exponents = torch.arange(0, self.dims, 2, dtype=torch.int64).float() / self.dims
        return 1.0 / (self.theta**exponents)

    def magnitude(self, context: int) -> float:
        """What cosines and sines are multiplied by."""
        return 1.0

    def variant(self, context: int) -> str:
        """Names what else than the checkpoint decides about the frequencies; empty when nothing does."""
        return ""


class LinearRope(Rope, frozen=True, kw_only=True):
    """All waves `factor` times as long (position interpolation)."""

    factor: float

    def frequencies(self, context: int) -> Tensor:
        return super().frequencies(context) / self.factor


class Llama3Rope(Rope, frozen=True, kw_only=True):
    """Long waves are stretched by `factor`, short ones kept, those between blended (Llama 3.1)."""

    factor: float
    low: float
    high: float
    original: int

    def frequencies(self, context: int) -> Tensor:
        plain = super().frequencies(context)
        waves_in_context = self.original * plain / (2 * math.pi)
        blend = (waves_in_context - self.low) / (self.high - self.low)
        between = (1 - blend) * plain / self.factor + blend * plain
        scaled = torch.where(waves_in_context < self.low, plain / self.factor, between)
        return torch.where(waves_in_context > self.high, plain, scaled)


class YarnRope(Rope, frozen=True, kw_only=True):
    """Dimensions that turn less than `slow` times in the original context are stretched, those that turn more than
    `fast` times kept, with a ramp between (Peng et al., "YaRN", 2023)."""

    factor: float
    original: int
    fast: float
    slow: float
    truncate: bool
    attention_factor: float

    @property
    def reach(self) -> int:
        return int(self.original * self.factor)

    def frequencies(self, context: int) -> Tensor:
        plain = super().frequencies(context)
        low, high = self._dimension(self.fast), self._dimension(self.slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.dims - 1)
        width = high - low or 0.001
        stretched = ((torch.arange(self.dims // 2, dtype=torch.float32) - low) / width).clamp_(0, 1)
        return plain / self.factor * stretched + plain * (1 - stretched)

    def magnitude(self, context: int) -> float:
        return self.attention_factor

    def _dimension(self, turns: float) -> float:
        """Which pair of elements turns so often in the original context."""
        return self.dims * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(self.theta))


class LongRope(Rope, frozen=True, kw_only=True):
    """A factor for each frequency, found by search (Ding et al., "LongRoPE", 2024): the short factors for contexts of
    up to `original` tokens, the long ones beyond.

    transformers changes from one to the other in the middle of a sequence and computes all keys again. Here keys are
    shared between sequences, so that the longest context that is served decides once for all of them.
    """

    original: int
    short: tuple[float, ...]
    long: tuple[float, ...]
    attention_factor: float

    def variant(self, context: int) -> str:
        return "long" if context > self.original else "short"

    def frequencies(self, context: int) -> Tensor:
        factors = self.long if context > self.original else self.short
        return super().frequencies(context) / torch.tensor(factors, dtype=torch.float32)

    def magnitude(self, context: int) -> float:
        return self.attention_factor


class Rotary:
    """The tables of one rotary embedding for the positions that are served, of the model's type, or float32 where the
    rotation is C's, which wants that."""

    def __init__(self, rope: Rope, context: int, dtype: torch.dtype, device: torch.device) -> None:
        if device.type == "meta":
            # A model that is only asked for its weights. Arithmetic there would import a compiler for three seconds.
            table = torch.empty((context, rope.dims), dtype=dtype, device=device)
            self.tables = table, table
            return
        if native_type(device, dtype):
            dtype = torch.float32
        frequencies = rope.frequencies(context).to(device)
        self.tables = rotary_tables(frequencies, context, dtype, rope.magnitude(context))

    def rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of these positions, each [tokens, 1, dims]."""
        cos, sin = self.tables
        return cos.index_select(0, positions).unsqueeze(1), sin.index_select(0, positions).unsqueeze(1)
