"""Qwen3: Llama with a norm over each query and key head; windows only where the configuration asks for them."""

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
from .qwen2 import read_qwen_windows


class Qwen3Config(ModelConfig, frozen=True, kw_only=True):
    """Qwen3's shape."""

    attention_bias: bool


class Qwen3(Decoder[Qwen3Config]):
    """Qwen3, dense."""

    @staticmethod
    def read_config(fields: Fields) -> Qwen3Config:
        shape = read_shape(fields, Defaults(max_context=32768, kv_heads=32, head_dim=128))
        rope = read_rope(fields, shape.head_dim, shape.max_context)
        attention = [LayerAttention(rope, window) for window in read_qwen_windows(fields, shape)]
        return shape.extended(Qwen3Config, attention, attention_bias=fields.flag("attention_bias"))

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
                query_norm=read_norm(attention, "q_norm", config.head_dim, config.norm_eps),
                key_norm=read_norm(attention, "k_norm", config.head_dim, config.norm_eps),
            ),
            read_norm(weights, "post_attention_layernorm", config.hidden_size, config.norm_eps),
            GatedMlp(read_gate_up(mlp, config, split), read_down(mlp, config, split), swiglu),
        )
