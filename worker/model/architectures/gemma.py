"""What Gemma 2 and 3 have in common beyond the decoder: scaled embedding, offset norms on both sides of each block,
gelu, and capped logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ....kernels.geglu import geglu
from ..attention import Attention
from ..config import Config, Defaults, ModelConfig, Shape, read_shape
from ..decoder import Decoder
from ..fields import Fields
from ..layers import Layer, SandwichLayer
from ..mlp import GatedMlp, read_down, read_gate_up
from ..norm import Norm, read_offset_norm
from ..weights import WeightReader


class GemmaConfig(ModelConfig, frozen=True, kw_only=True):
    """Scores are divided by the root of `score_scalar`; a cap of 0 leaves logits as they are."""

    attention_bias: bool
    score_scalar: float
    logits_cap: float


def read_gemma_shape(fields: Fields, max_context: int) -> Shape:
    """The shape; the activation can only be gelu by its tanh approximation."""
    fields.choice("hidden_activation", ("gelu_pytorch_tanh",), "gelu_pytorch_tanh")
    fields.get("hidden_act")  # older files carry it, and nothing reads it
    return read_shape(fields, Defaults(max_context=max_context, kv_heads=4, head_dim=256, tied_embeddings=True))


class Gemma(Decoder[Config]):
    """All of a Gemma but its attention."""

    def sandwich(self, attention: Attention, weights: WeightReader) -> Layer:
        """The layer around `attention`."""
        config, mlp = self.config, weights.inside("mlp.")
        return SandwichLayer(
            self.comm,
            self.offset_norm(weights, "input_layernorm"),
            attention,
            self.offset_norm(weights, "post_attention_layernorm"),
            self.offset_norm(weights, "pre_feedforward_layernorm"),
            GatedMlp(read_gate_up(mlp, config, self.split), read_down(mlp, config, self.split), geglu),
            self.offset_norm(weights, "post_feedforward_layernorm"),
        )

    def offset_norm(self, weights: WeightReader, name: str) -> Norm:
        return read_offset_norm(weights, name, self.config.hidden_size, self.config.norm_eps)

    def final_norm(self, weights: WeightReader) -> Norm:
        return self.offset_norm(weights, "model.norm")

    def scale_embedding(self, x: Tensor) -> Tensor:
        # The factor is rounded to the model's type, as it was in training.
        return x.mul_(torch.tensor(self.config.hidden_size**0.5, dtype=self.dtype).item())


def cap(logits: Tensor, bound: float) -> Tensor:
    """`bound * tanh(logits / bound)`, in place; unchanged for a bound of 0."""
    return logits.div_(bound).tanh_().mul_(bound) if bound else logits
