"""Which part of the model a rank holds. Uneven divisions are refused with the numbers that would work."""

from __future__ import annotations

import msgspec

from ...core.errors import ConfigError
from ..parallel.topology import Topology
from .config import ModelConfig


class Part(msgspec.Struct, frozen=True):
    """A contiguous range of something that is split."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def scaled(self, factor: int) -> Part:
        """The same part of something with `factor` elements for each of ours."""
        return Part(self.start * factor, self.stop * factor)

    def shifted(self, distance: int) -> Part:
        """The same part of something that begins `distance` elements into a greater whole."""
        return Part(self.start + distance, self.stop + distance)


class Split(msgspec.Struct, frozen=True):
    """A rank's slice: its layers, and within them its heads, KV heads, MLP columns and vocabulary."""

    layers: Part
    heads: Part
    kv_heads: Part
    columns: Part
    vocab: Part


def split_model(config: ModelConfig, place: Topology) -> Split:
    """The slice of `place`. Raises ConfigError when tp or pp does not divide the model."""
    shared = {
        "num_key_value_heads": config.kv_heads,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
    }
    for name, whole in shared.items():
        if whole % place.tp:
            raise ConfigError(
                f"tp = {place.tp} does not divide {name} = {whole}; {_choices('tp', list(shared.values()))}"
            )
    if config.layers % place.pp:
        raise ConfigError(
            f"pp = {place.pp} does not divide num_hidden_layers = {config.layers}; {_choices('pp', [config.layers])}"
        )

    def part(whole: int) -> Part:
        size = whole // place.tp
        return Part(place.tp_rank * size, (place.tp_rank + 1) * size)

    depth = config.layers // place.pp
    layers = Part(place.pp_rank * depth, (place.pp_rank + 1) * depth)
    return Split(
        layers, part(config.heads), part(config.kv_heads), part(config.intermediate_size), part(config.vocab_size)
    )


def _choices(name: str, wholes: list[int]) -> str:
    fits = [str(size) for size in range(1, min(wholes) + 1) if all(whole % size == 0 for whole in wholes)]
    return f"{name} can be {', '.join(fits)}"
