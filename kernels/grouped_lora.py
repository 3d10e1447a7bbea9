"""Low-rank updates of many adapters in one batch: each group of tokens gets its own adapter's.

The grouping is that of Punica's SGMV (Chen et al., "Punica: Multi-Tenant LoRA Serving", MLSys 2024): tokens of one
adapter are gathered and go through its two thin matrices together, whatever else is in the batch. Where there are
Triton kernels, grouped_lora_tiles.py takes the place of this: there, no group is the host's to launch.

On CPU adapters are float32, whatever the model is, and a token's update has the same bits whatever the other tokens
and adapters are: products go by tiles of a fixed number of rows (linear_invariant.py). A few columns would go other
ways than many, so `pack_down` widens them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .linear_invariant import tiled_product, widened


class LoraPiece(NamedTuple):
    """One adapted projection within a fused output: columns `start` to `stop`, from values `first` to `last` of the
    thin product. up: [last - first, stop - start], row-major, the scale multiplied in."""

    start: int
    stop: int
    first: int
    last: int
    up: Tensor


class LoraGroup(NamedTuple):
    """Tokens of one adapter at one product. tokens: [count] int64, rows of its input and output; None for all of them.
    down: [inputs, ranks], row-major, the projections' side by side."""

    tokens: Tensor | None
    down: Tensor
    pieces: Sequence[LoraPiece]


def pack_down(down: Tensor) -> Tensor:
    """`down` as the products want it: with columns of zeros where it has few. [inputs, ranks]."""
    return widened(down)


def grouped_lora(out: Tensor, x: Tensor, groups: Sequence[LoraGroup]) -> Tensor:
    """Adds `x @ down @ up` into `out` for the tokens and columns of each group; the others keep their bits.

    x: [tokens, inputs], out: [tokens, outputs], of one dtype, in which the update is added; the adapters are of it, or
    float32. No token is in two groups. Returns `out`.
    """
    for tokens, down, pieces in groups:
        own = x.contiguous() if tokens is None else x.index_select(0, tokens)
        thin = tiled_product(own.to(down.dtype), down)
        for start, stop, first, last, up in pieces:
            update = tiled_product(thin[:, first:last].contiguous(), up).to(out.dtype)
            if tokens is None:
                out[:, start:stop].add_(update)
            else:
                out[:, start:stop].index_add_(0, tokens, update)
    return out


def grouped_lora_reference(out: Tensor, x: Tensor, groups: Sequence[LoraGroup]) -> Tensor:
    """The definition, token by token. Returns a new tensor."""
    result = out.clone()
    for tokens, down, pieces in groups:
        for token in range(len(x)) if tokens is None else tokens.tolist():
            thin = x[token] @ down
            for start, stop, first, last, up in pieces:
                result[token, start:stop] += thin[first:last] @ up
    return result
