"""Llama 1 to 3: grouped-query attention with rotary positions, SwiGLU, RMS norms before each."""

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


class LlamaConfig(ModelConfig, frozen=True, kw_only=True):
    """Llama's shape; biases are there for models that borrow the architecture."""

    attention_bias: bool
    mlp_bias: bool


class Llama(Decoder[LlamaConfig]):
    """Llama 1 to 3.3 without images, and the many models that are published under its architecture."""

    @staticmethod
    def read_config(fields: Fields) -> LlamaConfig:
        shape = read_shape(fields, Defaults(max_context=2048))
        rope = read_rope(fields, shape.head_dim, shape.max_context)
        return shape.extended(
            LlamaConfig,
            [LayerAttention(rope)] * shape.layers,
            attention_bias=fields.flag("attention_bias"),
            mlp_bias=fields.flag("mlp_bias"),
        )

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
                read_qkv(attention, config, split, bias=config.attention_bias),
                read_out(attention, config, split, bias=config.attention_bias),
            ),
            read_norm(weights, "post_attention_layernorm", config.hidden_size, config.norm_eps),
            GatedMlp(
                read_gate_up(mlp, config, split, bias=config.mlp_bias),
                read_down(mlp, config, split, bias=config.mlp_bias),
                swiglu,
            ),
        )
