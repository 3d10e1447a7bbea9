"""Mixtral: Mistral with experts in place of every MLP."""

from __future__ import annotations

from ..attention import Attention, read_out, read_qkv
from ..config import Defaults, LayerAttention, ModelConfig, read_shape
from ..decoder import Decoder
from ..experts import STACKED, ExpertMlp, ExpertNames, read_experts, read_router
from ..fields import Fields
from ..layers import Layer, PreNormLayer
from ..norm import read_norm
from ..rope_fields import read_rope
from ..weights import WeightReader

NAMES = ExpertNames(gate="w1", up="w3", down="w2")


class MixtralConfig(ModelConfig, frozen=True, kw_only=True):
    """Mixtral's shape. `intermediate_size` is an expert's."""

    active_experts: int


class Mixtral(Decoder[MixtralConfig]):
    """Mixtral 8x7B and 8x22B."""

    @staticmethod
    def read_config(fields: Fields) -> MixtralConfig:
        shape = read_shape(fields, Defaults(max_context=131072, kv_heads=8, norm_eps=1e-5, experts=8))
        rope = read_rope(fields, shape.head_dim, shape.max_context, theta=1e6)
        window = fields.count_or_none("sliding_window")
        active = fields.count("num_experts_per_tok", 2)
        if active > shape.experts:
            raise fields.refuse(
                "num_experts_per_tok", f"= {active} must be at most num_local_experts = {shape.experts}"
            )
        return shape.extended(MixtralConfig, [LayerAttention(rope, window)] * shape.layers, active_experts=active)

    def layer(self, index: int, weights: WeightReader) -> Layer:
        config, split = self.config, self.split
        attention, mlp = weights.inside("self_attn."), weights.inside("mlp.")
        block = mlp if mlp.holds(STACKED) else weights.inside("block_sparse_moe.")
        experts = read_experts(block, config, config.experts, config.intermediate_size, split.columns, NAMES)
        return PreNormLayer(
            self.comm,
            read_norm(weights, "input_layernorm", config.hidden_size, config.norm_eps),
            Attention(
                config,
                split,
                index,
                self.rotary(index),
                read_qkv(attention, config, split, bias=False),
                read_out(attention, config, split, bias=False),
            ),
            read_norm(weights, "post_attention_layernorm", config.hidden_size, config.norm_eps),
            ExpertMlp(
                read_router(block, config, config.experts),
                experts,
                config.active_experts,
                normalized=True,
                invariant=weights.products.invariant,
            ),
        )
