"""Which part of the model a rank holds. Uneven divisions are refused with the numbers that would work."""

from __future__ import annotations

import msgspec

from ...core.errors import ConfigError
from ..parallel.topology import Topology
from .config import Shape
from .quantization import check_inputs


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
    """A rank's slice: its layers, and within them its heads, KV heads, MLP columns, vocabulary, and the columns of each
    expert where experts have a width of their own.

    Where there are more ranks than KV heads, several ranks hold the same one.
    """

    layers: Part
    heads: Part
    kv_heads: Part
    columns: Part
    vocab: Part
    expert_columns: Part = Part(0, 0)


def split_model(shape: Shape, place: Topology) -> Split:
    """The slice of `place`. Raises ConfigError when tp or pp does not divide the model."""
    shared = {
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
    }
    if shape.expert_width:
        shared["moe_intermediate_size"] = shape.expert_width
    fits = [tp for tp in range(1, min(shared.values()) + 1) if _fits(tp, shape.kv_heads, shared)]
    choices = f"tp can be {', '.join(map(str, fits))}"
    for name, whole in shared.items():
        if whole % place.tp:
            raise ConfigError(f"tp = {place.tp} does not divide {name} = {whole}; {choices}")
    if shape.kv_heads % place.tp and place.tp % shape.kv_heads:
        raise ConfigError(
            f"tp = {place.tp} neither divides num_key_value_heads = {shape.kv_heads} nor is a multiple of it; {choices}"
        )
    if shape.quantization is not None:
        inputs = {
            "num_attention_heads * head_dim": shape.heads * shape.head_dim,
            "intermediate_size": shape.intermediate_size,
        }
        if shape.expert_width:
            inputs["moe_intermediate_size"] = shape.expert_width
        check_inputs(shape.quantization, shape.hidden_size, inputs, place.tp, fits)
    if shape.layers % place.pp:
        fits = [pp for pp in range(1, shape.layers + 1) if shape.layers % pp == 0]
        raise ConfigError(
            f"pp = {place.pp} does not divide num_hidden_layers = {shape.layers}; pp can be {', '.join(map(str, fits))}"
        )

    def part(whole: int) -> Part:
        size = whole // place.tp
        return Part(place.tp_rank * size, (place.tp_rank + 1) * size)

    depth = shape.layers // place.pp
    layers = Part(place.pp_rank * depth, (place.pp_rank + 1) * depth)
    if place.tp > shape.kv_heads:
        first = place.tp_rank * shape.kv_heads // place.tp
        kv_heads = Part(first, first + 1)
    else:
        kv_heads = part(shape.kv_heads)
    return Split(
        layers=layers,
        heads=part(shape.heads),
        kv_heads=kv_heads,
        columns=part(shape.intermediate_size),
        vocab=part(shape.vocab_size),
        expert_columns=part(shape.expert_width),
    )


def _fits(tp: int, kv_heads: int, shared: dict[str, int]) -> bool:
    return all(whole % tp == 0 for whole in shared.values()) and (kv_heads % tp == 0 or tp % kv_heads == 0)
