"""Phi-3 and Phi-4-mini: Llama with queries, keys and values in one tensor, gate and up in another, LongRoPE, and, in
Phi-4-mini, a part of each head that does not turn."""

from __future__ import annotations

from ....kernels.swiglu import swiglu
from ..attention import Attention, read_fused_qkv, read_out
from ..config import Defaults, LayerAttention, ModelConfig, read_shape
from ..decoder import Decoder
from ..fields import Fields
from ..layers import Layer, PreNormLayer
from ..mlp import GatedMlp, read_down, read_fused_gate_up
from ..norm import read_norm
from ..rope_fields import read_rope
from ..weights import WeightReader


class Phi3(Decoder[ModelConfig]):
    """Phi-3 and Phi-3.5 mini and medium, Phi-4, Phi-4-mini."""

    @staticmethod
    def read_config(fields: Fields) -> ModelConfig:
        shape = read_shape(fields, Defaults(max_context=4096, norm_eps=1e-5))
        rope = read_rope(fields, shape.head_dim, shape.max_context, original=4096, partial=True)
        window = fields.count_or_none("sliding_window")
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
                read_fused_qkv(attention, config, split, "qkv_proj"),
                read_out(attention, config, split, bias=False),
            ),
            read_norm(weights, "post_attention_layernorm", config.hidden_size, config.norm_eps),
            GatedMlp(read_fused_gate_up(mlp, config, split, "gate_up_proj"), read_down(mlp, config, split), swiglu),
        )
