"""Qwen3 with experts in place of most MLPs."""

from __future__ import annotations

from ....kernels.swiglu import swiglu
from ..attention import Attention, read_out, read_qkv
from ..config import Defaults, LayerAttention, read_shape
from ..decoder import Decoder
from ..experts import ExpertMlp, ExpertNames, read_experts, read_router
from ..fields import Fields
from ..layers import Layer, PreNormLayer
from ..mlp import GatedMlp, Mlp, read_down, read_gate_up
from ..norm import read_norm
from ..rope_fields import read_rope
from ..weights import WeightReader
from .qwen2 import read_qwen_windows
from .qwen3 import Qwen3Config

NAMES = ExpertNames(gate="gate_proj", up="up_proj", down="down_proj")


class Qwen3MoeConfig(Qwen3Config, frozen=True, kw_only=True):
    """Qwen3-MoE's shape. `dense` are the layers with an MLP, of `intermediate_size`; an expert's is `expert_width`."""

    active_experts: int
    normalized: bool
    dense: frozenset[int]


class Qwen3Moe(Decoder[Qwen3MoeConfig]):
    """Qwen3 30B-A3B and 235B-A22B."""

    @staticmethod
    def read_config(fields: Fields) -> Qwen3MoeConfig:
        shape = read_shape(fields, Defaults(max_context=32768, kv_heads=4, experts=128, expert_width=768))
        rope = read_rope(fields, shape.head_dim, shape.max_context)
        attention = [LayerAttention(rope, window) for window in read_qwen_windows(fields, shape)]
        active = fields.count("num_experts_per_tok", 8)
        if active > shape.experts:
            raise fields.refuse("num_experts_per_tok", f"= {active} must be at most num_experts = {shape.experts}")
        return shape.extended(
            Qwen3MoeConfig,
            attention,
            attention_bias=fields.flag("attention_bias"),
            active_experts=active,
            normalized=fields.flag("norm_topk_prob"),
            dense=_dense_layers(fields, shape.layers),
        )

    def layer(self, index: int, weights: WeightReader) -> Layer:
        config, split = self.config, self.split
        attention = weights.inside("self_attn.")
        return PreNormLayer(
            self.comm,
            read_norm(weights, "input_layernorm", config.hidden_size, config.norm_eps),
            Attention(
                config,
                split,
                index,
                self.rotary(index),
                read_qkv(attention, config, split, bias=config.attention_bias),
                read_out(attention, config, split, bias=config.attention_bias),
                query_norm=read_norm(attention, "q_norm", config.head_dim, config.norm_eps),
                key_norm=read_norm(attention, "k_norm", config.head_dim, config.norm_eps),
            ),
            read_norm(weights, "post_attention_layernorm", config.hidden_size, config.norm_eps),
            self._mlp(index, weights.inside("mlp.")),
        )

    def _mlp(self, index: int, weights: WeightReader) -> Mlp:
        config, split = self.config, self.split
        if index in config.dense:
            return GatedMlp(read_gate_up(weights, config, split), read_down(weights, config, split), swiglu)
        experts = read_experts(weights, config, config.experts, config.expert_width, split.expert_columns, NAMES)
        router = read_router(weights, config, config.experts)
        return ExpertMlp(
            router, experts, config.active_experts, normalized=config.normalized, invariant=weights.products.invariant
        )


def _dense_layers(fields: Fields, layers: int) -> frozenset[int]:
    """Those of `mlp_only_layers`, and all but every `decoder_sparse_step`-th."""
    named = fields.get("mlp_only_layers", [])
    if not isinstance(named, list) or not all(isinstance(index, int) and 0 <= index < layers for index in named):
        raise fields.refuse("mlp_only_layers", f"must be a list of layers below {layers}, got {named!r}")
    step = fields.count("decoder_sparse_step", 1)
    return frozenset(named) | {index for index in range(layers) if (index + 1) % step}
