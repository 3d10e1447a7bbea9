"""Reads `adapter_config.json` of PEFT into what its matrices mean; refuses whatever else an adapter can ask for."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec

from ...core.errors import ConfigError
from ..model.fields import Fields, read_json

CONFIG = "adapter_config.json"
ALL_LINEAR = "all-linear"

# Fields that would change what is computed, with the values under which they do not.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": (None, "none"),
    "init_lora_weights": (None, True, False, "gaussian", "orthogonal", "eva"),  # others change the base weights
    "modules_to_save": (None, []),
}
# Fields without effect once an adapter is trained, or that say what the tensors say themselves.
NO_EFFECT = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "layers_pattern",
        "loftq_config",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
    )
)
READ = frozenset(
    (
        "alpha_pattern",
        "exclude_modules",
        "layers_to_transform",
        "lora_alpha",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    )
)
PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+")


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`targets` are names or ends of names of the modules that the adapter must have, None when that is not said in a
    form that can be checked. `layers` are those it is limited to, None for all."""

    rank: int
    alpha: float
    rslora: bool
    targets: tuple[str, ...] | None
    layers: frozenset[int] | None
    ranks: dict[str, int]
    alphas: dict[str, float]

    def rank_of(self, module: str) -> int:
        return next((rank for name, rank in self.ranks.items() if is_meant(name, module)), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor of its update: alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023)."""
        rank = self.rank_of(module)
        alpha = next((alpha for name, alpha in self.alphas.items() if is_meant(name, module)), self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def wants(self, module: str, layer: int) -> bool:
        """Whether the adapter must have this module."""
        if self.targets is None or (self.layers is not None and layer not in self.layers):
            return False
        return self.targets == (ALL_LINEAR,) or any(is_meant(name, module) for name in self.targets)


def is_meant(name: str, module: str) -> bool:
    """Whether `name` names the module: whole, or the end of it. After ^ only whole."""
    if name.startswith("^"):
        return module == name[1:]
    return module == name or module.endswith("." + name)


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Raises ConfigError that names the file and the field which cannot be."""
    path = directory / CONFIG
    values = read_json(path)
    fields = Fields(path, values)
    for name, neutral in NEUTRAL.items():
        if values.get(name) not in neutral:
            raise fields.refuse(name, f"= {values[name]!r} is not supported")
    for name, value in values.items():
        # What is not known here is let through only where it is switched off.
        if value and name not in NEUTRAL and name not in NO_EFFECT and name not in READ:
            raise fields.refuse(name, f"= {value!r} is not supported")
    targets = _targets(fields)
    return AdapterConfig(
        rank=fields.count("r"),
        alpha=fields.number("lora_alpha"),
        rslora=fields.flag("use_rslora"),
        targets=None if values.get("exclude_modules") else targets,
        layers=_layers(fields),
        ranks={name: inner.count(name) for name, inner in _pattern(fields, "rank_pattern")},
        alphas={name: inner.number(name) for name, inner in _pattern(fields, "alpha_pattern")},
    )


def _targets(fields: Fields) -> tuple[str, ...] | None:
    value = fields.values.get("target_modules")
    if value == ALL_LINEAR:
        return (ALL_LINEAR,)
    if isinstance(value, str) and value:
        return None  # a regular expression: the tensors tell
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise fields.refuse("target_modules", f"must be a list of module names or {ALL_LINEAR!r}, got {value!r}")
    return tuple(value)


def _layers(fields: Fields) -> frozenset[int] | None:
    value = fields.values.get("layers_to_transform")
    if value is None or value == []:
        return None
    layers = value if isinstance(value, list) else [value]
    if not all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in layers):
        raise fields.refuse("layers_to_transform", f"must be a layer's number or a list of them, got {value!r}")
    return frozenset(layers)


def _pattern(fields: Fields, name: str) -> list[tuple[str, Fields]]:
    value: Any = fields.values.get(name) or {}
    if not isinstance(value, dict):
        raise fields.refuse(name, f"must be an object, got {value!r}")
    for key in value:
        if not PLAIN.fullmatch(key):
            raise fields.refuse(name, f"has {key!r}, and only names of modules and their ends are supported")
    inner = Fields(fields.path, value, f"{name}.")
    return [(key, inner) for key in value]


def check_directory(directory: Path) -> Path:
    """The file of its weights. Raises ConfigError for a directory that holds no adapter, or only a pickled one."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: there is no such directory")
    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():
        pickled = directory / "adapter_model.bin"
        if pickled.exists():
            raise ConfigError(f"{pickled} is a pickle, which can run code: save the adapter as {weights.name}")
        raise ConfigError(f"{directory} has no {weights.name}")
    return weights
