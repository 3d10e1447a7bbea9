"""Reads `config.json` of a Hugging Face checkpoint, of transformers 4 or 5, into the few numbers that we need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ...core.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16")
ROPE_TYPES = ("default", "linear", "llama3")
# Fields that would change what the model computes, with the values under which they do not.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", None),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1.0, 1, None),
}


class RopeConfig(msgspec.Struct, frozen=True):
    """Rotary embedding: `kind` is one of ROPE_TYPES; the numbers that it has no use for keep their defaults."""

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 0


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Shape of a decoder. Counts are the whole model's, not a rank's."""

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
    attention_bias: bool
    mlp_bias: bool
    rope: RopeConfig
    dtype: str
    eos_token_ids: tuple[int, ...]


class Fields:
    """Reads typed fields of one JSON object; each refusal names the file, the field and what would be right."""

    def __init__(self, path: Path, values: dict[str, Any], prefix: str = "") -> None:
        self.path = path
        self.values = values
        self.prefix = prefix

    def refuse(self, name: str, why: str) -> ConfigError:
        return ConfigError(f"{self.path}: {self.prefix}{name} {why}")

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(name, f"must be a whole number above 0, got {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.refuse(name, f"must be a number above 0, got {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        """true or false; false when absent."""
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise self.refuse(name, f"must be true or false, got {value!r}")
        return value

    def token_ids(self, name: str) -> tuple[int, ...]:
        """One id, a list of ids, or nothing."""
        value = self.values.get(name)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in ids):
            raise self.refuse(name, f"must be a token id or a list of them, got {value!r}")
        return tuple(ids)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ConfigError when it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a checkpoint in Hugging Face layout has it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return value


def read_config(directory: Path) -> ModelConfig:
    """The shape of the checkpoint in `directory`. Raises ConfigError that names the field which cannot be."""
    path = directory / "config.json"
    values = read_json(path)
    fields = Fields(path, values)
    for name, neutral in NEUTRAL.items():
        if values.get(name) not in neutral:
            raise fields.refuse(name, f"= {values[name]!r} is not supported")
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"= {kv_heads} must divide num_attention_heads = {heads}")
    if values.get("head_dim") is None and hidden % heads:
        raise fields.refuse("num_attention_heads", f"= {heads} must divide hidden_size = {hidden}")
    head_dim = fields.count("head_dim", hidden // heads)
    if head_dim % 2:
        raise fields.refuse("head_dim", f"= {head_dim} must be even")
    max_context = fields.count("max_position_embeddings", 2048)
    return ModelConfig(
        architecture=_architecture(fields),
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        layers=fields.count("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_context=max_context,
        tied_embeddings=fields.flag("tie_word_embeddings"),
        attention_bias=fields.flag("attention_bias"),
        mlp_bias=fields.flag("mlp_bias"),
        rope=_rope(fields, max_context),
        dtype=_dtype(fields),
        eos_token_ids=fields.token_ids("eos_token_id"),
    )


def _architecture(fields: Fields) -> str:
    names = fields.values.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise fields.refuse("architectures", f"must name one architecture, got {names!r}")
    return names[0]


def _dtype(fields: Fields) -> str:
    name = fields.values.get("dtype") or fields.values.get("torch_dtype") or "float32"
    if name not in DTYPES:
        raise fields.refuse("dtype", f"must be one of {', '.join(DTYPES)}, got {name!r}")
    return str(name)


def _rope(fields: Fields, max_context: int) -> RopeConfig:
    """`rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` of transformers 4."""
    section = "rope_parameters" if fields.values.get("rope_parameters") else "rope_scaling"
    values = fields.values.get(section) or {}
    if not isinstance(values, dict):
        raise fields.refuse(section, f"must be an object, got {values!r}")
    inner = Fields(fields.path, values, f"{section}.")
    kind = values.get("rope_type") or values.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise inner.refuse("rope_type", f"= {kind!r} is not supported; these are: {', '.join(ROPE_TYPES)}")
    if values.get("partial_rotary_factor") not in NEUTRAL["partial_rotary_factor"]:
        raise inner.refuse("partial_rotary_factor", f"= {values['partial_rotary_factor']!r} is not supported")
    theta = inner.number("rope_theta") if "rope_theta" in values else fields.number("rope_theta", 10000.0)
    if kind == "default":
        return RopeConfig(theta=theta)
    factor = inner.number("factor")
    if kind == "linear":
        return RopeConfig(kind=kind, theta=theta, factor=factor)
    low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
    if low >= high:
        raise inner.refuse("low_freq_factor", f"= {low:g} must be below high_freq_factor = {high:g}")
    original = inner.count("original_max_position_embeddings", max_context)
    return RopeConfig(kind, theta, factor, low, high, original)
