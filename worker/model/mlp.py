"""The block after attention, and the gated MLP of dense models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from .config import ModelConfig
from .linear import Linear
from .split import Split
from .weights import WeightReader


class Mlp(Protocol):
    """What a layer asks of the block after attention, dense or of experts."""

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, hidden] to this rank's share of [tokens, hidden]: the layer sums the shares over ranks."""
        ...


class GatedMlp:
    """`down(activation(gate) * up)` over this rank's columns; `gate_up` gives the gate first."""

    def __init__(self, gate_up: Linear, down: Linear, activation: Callable[[Tensor], Tensor]) -> None:
        self.gate_up = gate_up
        self.down = down
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate_up(x)))


def read_gate_up(weights: WeightReader, config: ModelConfig, split: Split, bias: bool = False) -> Linear:
    """`gate_proj` and `up_proj` as one product."""
    width = config.intermediate_size
    parts = [("gate_proj", width, split.columns), ("up_proj", width, split.columns)]
    return weights.fused_rows(parts, config.hidden_size, bias)


def read_fused_gate_up(weights: WeightReader, config: ModelConfig, split: Split, name: str) -> Linear:
    """One tensor that holds the rows of the gate, then those of the other half."""
    width = config.intermediate_size
    parts = [(name, 2 * width, split.columns), (name, 2 * width, split.columns.shifted(width))]
    return weights.fused_rows(parts, config.hidden_size, bias=False)


def read_down(weights: WeightReader, config: ModelConfig, split: Split, bias: bool = False) -> Linear:
    """`down_proj`, of this rank's columns."""
    return weights.columns("down_proj", config.hidden_size, config.intermediate_size, split.columns, bias)
