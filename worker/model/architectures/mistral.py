"""Mistral: Llama where every query sees no more than the newest `sliding_window` keys, its own included."""

from __future__ import annotations

from ....kernels.swiglu import swiglu
from ..attention import Attention, read_out, read_qkv
from ..config import Defaults, LayerAttention, ModelConfig, read_shape
from ..decoder import Decoder
from ..fields import Fields
from ..layers import Layer, PreNormLayer
from ..mlp import GatedMlp, read_down, read_gate_up
from ..norm import read_norm
from ..rope_fields import read_rope
from ..weights import WeightReader


class Mistral(Decoder[ModelConfig]):
    """Mistral 7B, NeMo, Small and Large without images."""

    @staticmethod
    def read_config(fields: Fields) -> ModelConfig:
        shape = read_shape(fields, Defaults(max_context=131072, kv_heads=8))
        rope = read_rope(fields, shape.head_dim, shape.max_context)
        window = fields.count_or_none("sliding_window", 4096)
        return shape.extended(ModelConfig, [LayerAttention(rope, window)] * shape.layers)

    def layer(self, index: int, weights: WeightReader) -> Layer:
        config, split = self.config, self.split
        attention, mlp = weights.inside("self_attn."), weights.inside("mlp.")
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
            GatedMlp(read_gate_up(mlp, config, split), read_down(mlp, config, split), swiglu),
        )
