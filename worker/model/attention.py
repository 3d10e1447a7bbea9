"""Grouped-query attention of one rank's heads, and how its weights are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from ...kernels.kv_write import kv_write
from ...kernels.launch import takes
from ...kernels.native.tensors import native_takes
from ...kernels.paged_attention import paged_attention
from ...kernels.rope_kv_write import HeadNorms, rope_kv_write
from ...kernels.rotary import rotate
from .config import ModelConfig
from .inputs import LayerCache, StepInputs
from .linear import Linear
from .norm import Norm
from .rope import Rotary
from .split import Part, Split
from .weights import WeightReader


@dataclass(frozen=True, slots=True)
class Step:
    """What all layers of a stage share in one step."""

    inputs: StepInputs
    _angles: dict[Rotary, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def angles(self, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of the step's tokens: only where no operation finds them in the tables itself."""
        if rotary not in self._angles:
            self._angles[rotary] = rotary.rows(self.inputs.positions)
        return self._angles[rotary]


class Attention:
    """Projects, turns, stores and attends.

    `qkv` gives this rank's query heads, then its key heads, then its value heads; `out` takes its query heads, and its
    outputs are to be summed over ranks.

    `scale` is 1 / sqrt(head_dim) unless given. `softcap` bounds scores to (-softcap, softcap) by tanh; 0 leaves them.
    `query_norm` and `key_norm`, over each head, come before the turn.
    """

    def __init__(
        self,
        config: ModelConfig,
        split: Split,
        layer: int,
        rotary: Rotary,
        qkv: Linear,
        out: Linear,
        *,
        scale: float | None = None,
        softcap: float = 0.0,
        query_norm: Norm | None = None,
        key_norm: Norm | None = None,
    ) -> None:
        self.heads, self.kv_heads, self.head_dim = split.heads.size, split.kv_heads.size, config.head_dim
        self.window = config.attention[layer].window
        self.rotary = rotary
        self.qkv = qkv
        self.out = out
        self.scale = 1.0 / math.sqrt(config.head_dim) if scale is None else scale
        self.softcap = softcap
        self.query_norm, self.key_norm = query_norm, key_norm

    def attend(self, x: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """[tokens, hidden] to [tokens, heads * head_dim], for `out`. Keys and values go into the cache."""
        heads, both = self.heads, self.heads + self.kv_heads
        qkv = self.qkv(x).view(-1, both + self.kv_heads, self.head_dim)
        inputs = step.inputs
        if takes(qkv) or native_takes(qkv):
            where = (inputs.positions, inputs.slots)
            query = rope_kv_write(qkv, *self.rotary.tables, *where, cache, heads, self._norms())
            return paged_attention(query, cache, inputs.attention[self.window], self.scale, self.softcap)
        cos, sin = step.angles(self.rotary)
        if self.query_norm is None or self.key_norm is None:
            turned = rotate(qkv[:, :both], cos, sin)
            query, key = turned[:, :heads], turned[:, heads:]
        else:
            query = rotate(self.query_norm(qkv[:, :heads]), cos, sin)
            key = rotate(self.key_norm(qkv[:, heads:both]), cos, sin)
        kv_write(key, qkv[:, both:], cache, inputs.slots)
        return paged_attention(query, cache, inputs.attention[self.window], self.scale, self.softcap)

    def _norms(self) -> HeadNorms | None:
        if self.query_norm is None or self.key_norm is None:
            return None
        return HeadNorms(self.query_norm.weight, self.key_norm.weight, self.query_norm.eps)


def read_qkv(weights: WeightReader, config: ModelConfig, split: Split, bias: bool) -> Linear:
    """`q_proj`, `k_proj` and `v_proj` as one product."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    query_part, key_part = split.heads.scaled(config.head_dim), split.kv_heads.scaled(config.head_dim)
    parts = [("q_proj", queries, query_part), ("k_proj", keys, key_part), ("v_proj", keys, key_part)]
    return weights.fused_rows(parts, config.hidden_size, bias)


def read_fused_qkv(weights: WeightReader, config: ModelConfig, split: Split, name: str) -> Linear:
    """One tensor that holds the rows of all query heads, then key heads, then value heads."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    query_part, key_part = split.heads.scaled(config.head_dim), split.kv_heads.scaled(config.head_dim)
    total = queries + 2 * keys
    parts = [query_part, key_part.shifted(queries), key_part.shifted(queries + keys)]
    return weights.fused_rows([(name, total, part) for part in parts], config.hidden_size, bias=False)


def read_out(weights: WeightReader, config: ModelConfig, split: Split, bias: bool) -> Linear:
    """`o_proj`, of this rank's heads."""
    part: Part = split.heads.scaled(config.head_dim)
    return weights.columns("o_proj", config.hidden_size, config.heads * config.head_dim, part, bias)
