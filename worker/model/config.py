"""Reads `config.json` of a Hugging Face checkpoint, of transformers 4 or 5, into the few numbers that we need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .fields import Fields, read_json
from .quantization import Quantization, read_quantization

if TYPE_CHECKING:  # the controller reads shapes, too, and has no use for torch
    from .rope import Rope

DTYPES = ("float32", "bfloat16", "float16")
# Fields that would change what a model computes, with the values under which they do not. An architecture that reads
# one of them honours it; for every other architecture these values are the only ones let through.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "attention_bias": (False, None),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "embedding_multiplier": (None, 1, 1.0),
    "final_logit_softcapping": (None,),
    "hidden_act": ("silu", None),
    "layer_types": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "mlp_bias": (False, None),
    "num_experts": (None,),
    "num_local_experts": (None,),
    "partial_rotary_factor": (1.0, 1, None),
    "query_pre_attn_scalar": (None,),
    "residual_multiplier": (None, 1, 1.0),
    "sliding_window": (None,),
    "use_bidirectional_attention": (False, None),
    "use_sliding_window": (False, None),
}


class LayerAttention(msgspec.Struct, frozen=True):
    """What the queries of one layer see: rotary embedding, and how many of the newest keys, their own included, where
    that is bounded below the whole context."""

    rope: Rope
    window: int | None = None


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What every decoder has. Counts are the whole model's, not a rank's.

    `experts` is 0 for a dense model; `expert_width` is moe_intermediate_size, 0 where experts have no width of their
    own.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    max_context: int
    tied_embeddings: bool
    dtype: str
    eos_token_ids: tuple[int, ...]
    experts: int = 0
    expert_width: int = 0
    quantization: Quantization | None = None

    def extended(self, kind: type[Config], attention: Sequence[LayerAttention], **more: Any) -> Config:
        """The configuration of an architecture: this shape, what each layer attends to, and fields of its own."""
        values: dict[str, Any] = msgspec.structs.asdict(self)
        values["max_context"] = max([self.max_context, *(layer.rope.reach for layer in attention)])
        return kind(**values, attention=tuple(attention), **more)


class ModelConfig(Shape, frozen=True, kw_only=True):
    """A decoder of any architecture; each has a class of its own below this one where it has more to say."""

    attention: tuple[LayerAttention, ...]

    def served(self, max_context: int) -> ModelConfig:
        """The same model, for contexts of at most `max_context` tokens."""
        return msgspec.structs.replace(self, max_context=max_context)

    def variant(self) -> str:
        """Names what keys and values depend on besides the checkpoint; empty when there is nothing."""
        return "/".join(dict.fromkeys(filter(None, (layer.rope.variant(self.max_context) for layer in self.attention))))


Config = TypeVar("Config", bound=ModelConfig)


class Defaults(msgspec.Struct, frozen=True):
    """What transformers takes an architecture's absent fields for: its configurations leave out what is usual.

    `kv_heads` and `head_dim` of 0 stand for the number of heads, and for hidden_size / heads.
    """

    max_context: int
    kv_heads: int = 0
    head_dim: int = 0
    norm_eps: float = 1e-6
    tied_embeddings: bool = False
    experts: int = 0
    expert_width: int = 0


def read_shape(fields: Fields, defaults: Defaults) -> Shape:
    """The fields that all architectures name alike. Raises ConfigError that names the field which cannot be."""
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", defaults.kv_heads or heads)
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"= {kv_heads} must divide num_attention_heads = {heads}")
    if fields.get("head_dim", defaults.head_dim or None) is None and hidden % heads:
        raise fields.refuse("num_attention_heads", f"= {heads} must divide hidden_size = {hidden}")
    head_dim = fields.count("head_dim", defaults.head_dim or hidden // heads)
    if head_dim % 2:
        raise fields.refuse("head_dim", f"= {head_dim} must be even")
    return Shape(
        architecture=architecture_of(fields),
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        layers=fields.count("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=fields.number("rms_norm_eps", defaults.norm_eps),
        max_context=fields.count("max_position_embeddings", defaults.max_context),
        tied_embeddings=fields.flag("tie_word_embeddings", defaults.tied_embeddings),
        dtype=_dtype(fields),
        eos_token_ids=fields.token_ids("eos_token_id"),
        quantization=read_quantization(fields),
        **_experts(fields, defaults),
    )


def _experts(fields: Fields, defaults: Defaults) -> dict[str, int]:
    """transformers 5 calls num_experts num_local_experts, too. Only an architecture that has experts by default reads
    them: for any other, naming some is no neutral thing to say."""
    if not defaults.experts:
        return {}
    count = fields.count("num_local_experts", fields.count("num_experts", defaults.experts))
    return {"experts": count, "expert_width": _width(fields, defaults)}


def _width(fields: Fields, defaults: Defaults) -> int:
    return fields.count("moe_intermediate_size", defaults.expert_width) if defaults.expert_width else 0


def read_outline(directory: Path) -> Shape:
    """The shape of the checkpoint in `directory`, whatever its architecture, without torch. An architecture's own
    defaults and refusals are `read_config`'s. Raises ConfigError."""
    path = directory / "config.json"
    return read_shape(Fields(path, read_json(path)), Defaults(max_context=1))


def read_dtype(directory: Path) -> str:
    """The type of the checkpoint's weights, one of DTYPES, without torch. Raises ConfigError."""
    path = directory / "config.json"
    return _dtype(Fields(path, read_json(path)))


def read_windows(fields: Fields, shape: Shape, window: int | None, slides: Callable[[int], bool]) -> list[int | None]:
    """The window of each layer: `window` where `layer_types` says so, or, where there is none, `slides(layer)`."""
    types = fields.get("layer_types")
    if types is None:
        sliding = [window is not None and slides(layer) for layer in range(shape.layers)]
    else:
        kinds = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or len(types) != shape.layers or any(kind not in kinds for kind in types):
            raise fields.refuse("layer_types", f"must name one of {', '.join(kinds)} for each of {shape.layers} layers")
        sliding = [kind == "sliding_attention" for kind in types]
    if any(sliding) and window is None:
        raise fields.refuse("sliding_window", "must be a whole number above 0: layer_types has sliding_attention")
    return [window if slide else None for slide in sliding]


def architecture_of(fields: Fields) -> str:
    """The one name in `architectures`."""
    names = fields.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise fields.refuse("architectures", f"must name one architecture, got {names!r}")
    return names[0]


def _dtype(fields: Fields) -> str:
    name = fields.values.get("dtype") or fields.values.get("torch_dtype") or "float32"
    if name not in DTYPES:
        raise fields.refuse("dtype", f"must be one of {', '.join(DTYPES)}, got {name!r}")
    return str(name)
