"""The block of experts in place of an MLP: a router, and what each token's experts say.

Ranks of a tensor-parallel group hold some columns of every expert, as they do of a dense MLP: each token's work is then
spread evenly, whichever experts it takes, and the ranks' shares are summed as ever.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.fused_moe import AnyExperts, fused_moe, pack_block_experts, pack_experts
from ...kernels.fused_moe_blocks import BlockExperts
from ...kernels.linear_blocks import groups_of
from .config import ModelConfig
from .linear import Linear
from .quantization import Layout
from .quantized import Piece, read_blocks
from .split import Part
from .weights import WeightReader

STACKED = "experts.gate_up_proj"


class ExpertNames(NamedTuple):
    """How a checkpoint calls an expert's three matrices."""

    gate: str
    up: str
    down: str


class ExpertMlp:
    """`router` scores all experts; the `active` best of a token speak, weighted by their share of probability, which is
    scaled to 1 over them with `normalized`. With `invariant` a token's bits do not depend on the others."""

    def __init__(self, router: Linear, experts: AnyExperts, active: int, *, normalized: bool, invariant: bool) -> None:
        self.router = router
        self.experts = experts
        self.active = active
        self.normalized = normalized
        self.invariant = invariant

    def __call__(self, x: Tensor) -> Tensor:
        probabilities = self.router(x).softmax(-1, dtype=torch.float32)
        shares, chosen = probabilities.topk(self.active, -1)
        if self.normalized:
            shares = shares / shares.sum(-1, keepdim=True)
        return fused_moe(x, self.experts, chosen, shares, invariant=self.invariant)


def read_experts(
    weights: WeightReader, config: ModelConfig, count: int, width: int, columns: Part, names: ExpertNames
) -> AnyExperts:
    """`columns` of the `width` of each of `count` experts, which lie below "experts.0." and so on, or stacked.

    transformers 5 holds experts stacked and by default writes them one by one, as checkpoints have always had them;
    with `save_original_format=False` it writes what it holds.
    """
    hidden, part = config.hidden_size, columns.size
    if weights.holds(f"experts.0.{names.gate}.{Layout.BLOCKS.mark}"):
        return _read_blocks(weights, config, count, width, columns, names)
    # In one piece from the start: collecting the experts first would take the block's memory twice.
    gate_up, down = weights.empty(count, 2 * part, hidden), weights.empty(count, hidden, part)
    if weights.holds(STACKED):
        for first, half in ((0, gate_up[:, :part]), (width, gate_up[:, part:])):
            rows = Part(first + columns.start, first + columns.stop)
            weights.stacked(STACKED, (count, 2 * width, hidden), 1, rows, half)
        weights.stacked("experts.down_proj", (count, hidden, width), 2, columns, down)
        return pack_experts(gate_up, down, int8=weights.products.int8)
    for index in range(count):
        expert = weights.inside(f"experts.{index}.")
        expert.rows(f"{names.gate}.weight", width, hidden, columns, gate_up[index, :part])
        expert.rows(f"{names.up}.weight", width, hidden, columns, gate_up[index, part:])
        expert.inputs(f"{names.down}.weight", hidden, width, columns, down[index])
    return pack_experts(gate_up, down, int8=weights.products.int8)


def _read_blocks(
    weights: WeightReader, config: ModelConfig, count: int, width: int, columns: Part, names: ExpertNames
) -> AnyExperts:
    """The same of fp8 weights with a scale for each block."""
    hidden, part, device = config.hidden_size, columns.size, weights.device

    def room(*shape: int) -> tuple[Tensor, Tensor]:
        narrow = torch.empty(shape, dtype=torch.float8_e4m3fn, device=device)
        return narrow, torch.empty((*shape[:-1], groups_of(shape[-1])), dtype=torch.float32, device=device)

    gate_up, down = room(count, 2 * part, hidden), room(count, hidden, part)
    whole = Part(0, hidden)
    for index in range(count):
        expert = weights.inside(f"experts.{index}.")
        for name, rows in ((names.gate, slice(0, part)), (names.up, slice(part, 2 * part))):
            for into, found in zip(
                gate_up, read_blocks(expert, Piece(name, width, hidden, columns, whole)), strict=True
            ):
                into[index, rows] = found
        for into, found in zip(
            down, read_blocks(expert, Piece(names.down, hidden, width, whole, columns)), strict=True
        ):
            into[index] = found
    experts = BlockExperts(*gate_up, *down)
    return experts if device.type == "meta" else pack_block_experts(experts, weights.dtype)


def read_router(weights: WeightReader, config: ModelConfig, count: int) -> Linear:
    """The whole router: every rank chooses alike. It is small, and its scores are close: it keeps its type."""
    how = weights.products._replace(int8=False)
    return Linear(weights.rows("gate.weight", count, config.hidden_size, Part(0, count)), how=how)
