"""Gemma 3, text only: five layers with a window and rope of their own to one that sees all, norms over each query and
key head, norms on both sides of each block."""

from __future__ import annotations

from torch import Tensor

from ..attention import Attention, read_out, read_qkv
from ..config import LayerAttention, Shape, read_windows
from ..fields import Fields
from ..layers import Layer
from ..norm import read_offset_norm
from ..rope import Rope
from ..rope_fields import read_scaling
from ..weights import WeightReader
from .gemma import Gemma, GemmaConfig, cap, read_gemma_shape


def read_ropes(fields: Fields, shape: Shape) -> tuple[Rope, Rope]:
    """Of layers without a window, and of those with one. Older files scale the first alone, by `rope_scaling`."""
    both = fields.inside("rope_parameters")
    whole = both.inside("full_attention") if both.values else fields.inside("rope_scaling")
    local = both.inside("sliding_attention")
    theta = whole.number("rope_theta", fields.number("rope_theta", 1_000_000.0))
    local_theta = local.number("rope_theta", fields.number("rope_local_base_freq", 10_000.0))
    both.refuse_unused(dict.fromkeys(both.values, (None,)))
    return (
        read_scaling(whole, theta, shape.head_dim, shape.max_context),
        read_scaling(local, local_theta, shape.head_dim, shape.max_context),
    )


class Gemma3(Gemma[GemmaConfig]):
    """Gemma 3 270M and 1B, and others published without the image tower."""

    @staticmethod
    def read_config(fields: Fields) -> GemmaConfig:
        shape = read_gemma_shape(fields, max_context=131072)
        whole, local = read_ropes(fields, shape)
        every = fields.count("sliding_window_pattern", 6)
        window = fields.count_or_none("sliding_window", 4096)
        windows = read_windows(fields, shape, window, lambda layer: (layer + 1) % every > 0)
        return shape.extended(
            GemmaConfig,
            [LayerAttention(local if window else whole, window) for window in windows],
            attention_bias=fields.flag("attention_bias"),
            score_scalar=fields.number("query_pre_attn_scalar", 256.0),
            logits_cap=fields.number_or_none("final_logit_softcapping") or 0.0,
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
            query_norm=read_offset_norm(inside, "q_norm", config.head_dim, config.norm_eps),
            key_norm=read_offset_norm(inside, "k_norm", config.head_dim, config.norm_eps),
        )
        return self.sandwich(attention, weights)

    def cap_logits(self, logits: Tensor) -> Tensor:
        return cap(logits, self.config.logits_cap)
