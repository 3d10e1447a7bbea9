"""Qwen2: Llama with biases on queries, keys and values; windows only where the configuration asks for them."""

from __future__ import annotations

from ....kernels.swiglu import swiglu
from ..attention import Attention, read_out, read_qkv
from ..config import Defaults, LayerAttention, ModelConfig, Shape, read_shape, read_windows
from ..decoder import Decoder
from ..fields import Fields
from ..layers import Layer, PreNormLayer
from ..mlp import GatedMlp, read_down, read_gate_up
from ..norm import read_norm
from ..rope_fields import read_rope
from ..weights import WeightReader


def read_qwen_windows(fields: Fields, shape: Shape) -> list[int | None]:
    """Without `use_sliding_window` no layer has a window, whatever `sliding_window` says. With it, those from
    `max_window_layers` on have, unless `layer_types` names them."""
    used = fields.flag("use_sliding_window")
    window = fields.count_or_none("sliding_window", 4096)
    first = fields.get("max_window_layers", 28)
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise fields.refuse("max_window_layers", f"must be a whole number of 0 or more, got {first!r}")
    return read_windows(fields, shape, window if used else None, lambda layer: layer >= first)


class Qwen2(Decoder[ModelConfig]):
    """Qwen2, Qwen2.5, QwQ, DeepSeek-R1-Distill-Qwen."""

    @staticmethod
    def read_config(fields: Fields) -> ModelConfig:
        shape = read_shape(fields, Defaults(max_context=32768, kv_heads=32))
        rope = read_rope(fields, shape.head_dim, shape.max_context)
        attention = [LayerAttention(rope, window) for window in read_qwen_windows(fields, shape)]
        return shape.extended(ModelConfig, attention)

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
                read_qkv(attention, config, split, bias=True),
                read_out(attention, config, split, bias=False),
            ),
            read_norm(weights, "post_attention_layernorm", config.hidden_size, config.norm_eps),
            GatedMlp(read_gate_up(mlp, config, split), read_down(mlp, config, split), swiglu),
        )
