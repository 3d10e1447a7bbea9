"""Gemma 2: every other layer sees a window, scores and logits are capped by tanh, norms on both sides of each block."""

from __future__ import annotations

from torch import Tensor

from ..attention import Attention, read_out, read_qkv
from ..config import LayerAttention, read_windows
from ..fields import Fields
from ..layers import Layer
from ..rope_fields import read_rope
from ..weights import WeightReader
from .gemma import Gemma, GemmaConfig, cap, read_gemma_shape


class Gemma2Config(GemmaConfig, frozen=True, kw_only=True):
    """A cap of 0 leaves scores as they are."""

    scores_cap: float


class Gemma2(Gemma[Gemma2Config]):
    """Gemma 2."""

    @staticmethod
    def read_config(fields: Fields) -> Gemma2Config:
        shape = read_gemma_shape(fields, max_context=8192)
        rope = read_rope(fields, shape.head_dim, shape.max_context)
        windows = read_windows(
            fields, shape, fields.count_or_none("sliding_window", 4096), lambda layer: layer % 2 == 0
        )
        return shape.extended(
            Gemma2Config,
            [LayerAttention(rope, window) for window in windows],
            attention_bias=fields.flag("attention_bias"),
            score_scalar=fields.number("query_pre_attn_scalar", 256.0),
            logits_cap=fields.number_or_none("final_logit_softcapping", 30.0) or 0.0,
            scores_cap=fields.number_or_none("attn_logit_softcapping", 50.0) or 0.0,
        )

    def layer(self, index: int, weights: WeightReader) -> Layer:
        config, split, inside = self.config, self.split, weights.inside("self_attn.")
        attention = Attention(
            config,
            split,
            index,
            self.rotary(index),
            read_qkv(inside, config, split, bias=config.attention_bias),
            read_out(inside, config, split, bias=config.attention_bias),
            scale=config.score_scalar**-0.5,
            softcap=config.scores_cap,
        )
        return self.sandwich(attention, weights)

    def cap_logits(self, logits: Tensor) -> Tensor:
        return cap(logits, self.config.logits_cap)
