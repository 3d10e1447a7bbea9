"""Low-rank updates of many adapters in one batch on a device: two launches a product, whoever is in the batch.

Tokens of one adapter are gathered into tiles, as Punica's SGMV does with segments (Chen et al., "Punica: Multi-Tenant
LoRA Serving", MLSys 2024). The first launch takes each tile through its adapter's thin matrices, the second adds what
comes of it into the output. Adapters lie in slots of one shape, and ranks below the slot's are neither read nor
computed. Tokens without an adapter are in no tile.

The inputs are split into parts of a fixed size, which are summed in their order: a token's update has the same bits
whatever the other tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .launch import expect_contiguous, half_type, jit, moved, power_of_two, takes, tl, triton

TILE_ROWS = 16  # tokens of one adapter: the least that a matrix product takes, and more than most adapters have
BLOCK_IN = 128
BLOCK_OUT = 64
RANK_BLOCK = 64
SPLIT = 1024  # inputs of one program of the first launch
NO_SLOT = -1


class LoraSlots(NamedTuple):
    """The adapters at one product of several projections side by side, scales multiplied in.

    down: [slots, projections, most, inputs], up: [slots, outputs, most], of one dtype, where `most` is the highest rank
    that there is room for; ranks: [slots, projections] int32, 0 where an adapter leaves a projection alone: what is
    beyond is not read. columns: [blocks, 3] int32, of `column_blocks`.
    """

    down: Tensor
    up: Tensor
    ranks: Tensor
    columns: Tensor


def column_blocks(widths: Sequence[int]) -> Tensor:
    """Blocks of at most BLOCK_OUT columns of one projection each, [blocks, 3] int32 on the CPU: first column, the
    projection's end, projection."""
    blocks, start = [], 0
    for projection, width in enumerate(widths):
        blocks += [(first, start + width, projection) for first in range(start, start + width, BLOCK_OUT)]
        start += width
    return torch.tensor(blocks, dtype=torch.int32).view(-1, 3)


def plan_lora_tiles(slot_of_token: npt.NDArray[np.int32], device: torch.device) -> Tensor:
    """`lora_tiles` on the device."""
    return moved(torch.from_numpy(lora_tiles(slot_of_token)), device)


def most_tiles(tokens: int, slots: int) -> int:
    """The most that so many tokens can take, with adapters in so many slots."""
    return min(tokens, slots + tokens // TILE_ROWS)


def lora_tiles(slot_of_token: npt.NDArray[np.int32], least: int = 0) -> npt.NDArray[np.int32]:
    """Which tokens go together, [tiles, 1 + TILE_ROWS]: a slot, and its tokens, filled up with -1.

    slot_of_token: [tokens], below 0 for tokens without an adapter. At least `least` tiles, as a captured graph needs
    that serves several steps; those that are not needed have NO_SLOT.
    """
    rows: list[tuple[int, npt.NDArray[np.int64]]] = []
    for slot in np.unique(slot_of_token[slot_of_token >= 0]).tolist():
        tokens = np.flatnonzero(slot_of_token == slot)
        rows += [(slot, tokens[first : first + TILE_ROWS]) for first in range(0, len(tokens), TILE_ROWS)]
    tiles = np.full((max(least, len(rows)), 1 + TILE_ROWS), NO_SLOT, np.int32)
    for tile, (slot, tokens) in zip(tiles, rows, strict=False):
        tile[0] = slot
        tile[1 : 1 + len(tokens)] = tokens
    return tiles


def grouped_lora_tiles(out: Tensor, x: Tensor, slots: LoraSlots, tiles: Tensor) -> Tensor:
    """Adds each tile's adapter's `x @ down @ up` into `out`; tokens and projections without one keep their bits.

    x: [tokens, inputs], out: [tokens, outputs], contiguous, of one dtype with the adapters; tiles: of `lora_tiles`, on
    their device. Returns `out`.
    """
    if not len(tiles):
        return out
    if takes(x):
        return _launch(out, x.contiguous(), slots, tiles)
    return out.copy_(grouped_lora_tiles_reference(out, x, slots, tiles))


def grouped_lora_tiles_reference(out: Tensor, x: Tensor, slots: LoraSlots, tiles: Tensor) -> Tensor:
    """The definition, tile by tile. Returns a new tensor."""
    result = out.clone()
    for slot, *tokens in tiles.tolist():
        rows = [token for token in tokens if token >= 0]
        for first, end, projection in slots.columns.tolist() if rows else ():
            rank, last = int(slots.ranks[slot, projection]), min(first + BLOCK_OUT, end)
            thin = x[rows].float() @ slots.down[slot, projection, :rank].float().T
            update = thin.to(x.dtype).float() @ slots.up[slot, first:last, :rank].float().T
            result[rows, first:last] = (result[rows, first:last].float() + update).to(out.dtype)
    return result


def _launch(out: Tensor, x: Tensor, slots: LoraSlots, tiles: Tensor) -> Tensor:
    expect_contiguous(out=out, tiles=tiles, **slots._asdict())
    _, projections, most, inputs = slots.down.shape
    count, outputs = len(tiles), out.shape[1]
    block = min(RANK_BLOCK, max(16, power_of_two(most)))
    rank_blocks, splits = triton.cdiv(most, block), triton.cdiv(inputs, SPLIT)
    thin = torch.empty(
        (splits, count, projections, rank_blocks * block, TILE_ROWS), dtype=torch.float32, device=x.device
    )
    common = {
        "PROJECTIONS": projections, "MOST": most, "RANK_BLOCK": block, "RANK_BLOCKS": rank_blocks, "ROWS": TILE_ROWS,
        "PRECISION": "tf32" if half_type(x.dtype) else "ieee",
    }  # fmt: skip
    shrink_kernel[(count, projections * rank_blocks, splits)](
        x, slots.down, slots.ranks, tiles, thin,
        INPUTS=inputs, SPLIT=SPLIT, BLOCK_IN=BLOCK_IN, **common, num_warps=4, num_stages=3,
    )  # fmt: skip
    expand_kernel[(count, len(slots.columns))](
        out, slots.up, slots.ranks, slots.columns, tiles, thin,
        OUTPUTS=outputs, SPLITS=splits, BLOCK_OUT=BLOCK_OUT, **common, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


@jit
def shrink_kernel(
    x: tl.tensor, down: tl.tensor, ranks: tl.tensor, tiles: tl.tensor, thin: tl.tensor,
    INPUTS: tl.constexpr, SPLIT: tl.constexpr, BLOCK_IN: tl.constexpr, PROJECTIONS: tl.constexpr, MOST: tl.constexpr,
    RANK_BLOCK: tl.constexpr, RANK_BLOCKS: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One tile, one block of one projection's ranks, one part of the inputs; taken as weight times rows."""
    tile = tl.program_id(0)
    projection = tl.program_id(1) // RANK_BLOCKS
    split = tl.program_id(2)
    slot = tl.load(tiles + tile * (ROWS + 1)).to(tl.int64)
    if slot < 0:
        return
    r = tl.program_id(1) % RANK_BLOCKS * RANK_BLOCK + tl.arange(0, RANK_BLOCK)
    asked = r < tl.load(ranks + slot * PROJECTIONS + projection)
    row = tl.arange(0, ROWS)
    token = tl.load(tiles + tile * (ROWS + 1) + 1 + row).to(tl.int64)
    i = tl.arange(0, BLOCK_IN)
    down_rows = down + ((slot * PROJECTIONS + projection) * MOST + r)[:, None] * INPUTS
    x_rows = x + token[None, :] * INPUTS
    sums = tl.zeros((RANK_BLOCK, ROWS), tl.float32)
    for start in range(split * SPLIT, tl.minimum(split * SPLIT + SPLIT, INPUTS), BLOCK_IN):
        at = start + i
        w = tl.load(down_rows + at[None, :], mask=asked[:, None] & (at < INPUTS)[None, :], other=0.0)
        v = tl.load(x_rows + at[:, None], mask=(token >= 0)[None, :] & (at < INPUTS)[:, None], other=0.0)
        sums = tl.dot(w, v, sums, input_precision=PRECISION)
    into = ((split * tl.num_programs(0) + tile) * PROJECTIONS + projection) * (RANK_BLOCKS * RANK_BLOCK)
    tl.store(thin + (into + r)[:, None] * ROWS + row[None, :], sums, mask=asked[:, None])


@jit
def expand_kernel(
    out: tl.tensor, up: tl.tensor, ranks: tl.tensor, columns: tl.tensor, tiles: tl.tensor, thin: tl.tensor,
    OUTPUTS: tl.constexpr, SPLITS: tl.constexpr, BLOCK_OUT: tl.constexpr, PROJECTIONS: tl.constexpr,
    MOST: tl.constexpr, RANK_BLOCK: tl.constexpr, RANK_BLOCKS: tl.constexpr, ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One tile and one block of one projection's columns."""
    tile = tl.program_id(0)
    slot = tl.load(tiles + tile * (ROWS + 1)).to(tl.int64)
    if slot < 0:
        return
    block = columns + tl.program_id(1) * 3
    first, end, projection = tl.load(block), tl.load(block + 1), tl.load(block + 2)
    rank = tl.load(ranks + slot * PROJECTIONS + projection)
    if rank == 0:
        return
    o = first + tl.arange(0, BLOCK_OUT)
    row = tl.arange(0, ROWS)
    token = tl.load(tiles + tile * (ROWS + 1) + 1 + row).to(tl.int64)
    up_rows = up + (slot * OUTPUTS + o)[:, None] * MOST
    sums = tl.zeros((BLOCK_OUT, ROWS), tl.float32)
    for start in range(0, rank, RANK_BLOCK):
        r = start + tl.arange(0, RANK_BLOCK)
        thinned = tl.zeros((RANK_BLOCK, ROWS), tl.float32)
        for split in range(SPLITS):
            source = ((split * tl.num_programs(0) + tile) * PROJECTIONS + projection) * (RANK_BLOCKS * RANK_BLOCK)
            thinned += tl.load(thin + (source + r)[:, None] * ROWS + row[None, :], mask=(r < rank)[:, None], other=0.0)
        w = tl.load(up_rows + r[None, :], mask=(o < end)[:, None] & (r < rank)[None, :], other=0.0)
        sums = tl.dot(w, thinned.to(w.dtype), sums, input_precision=PRECISION)
    into = out + token[None, :] * OUTPUTS + o[:, None]
    asked = (o < end)[:, None] & (token >= 0)[None, :]
    before = tl.load(into, mask=asked, other=0.0).to(tl.float32)
    tl.store(into, (before + sums).to(out.dtype.element_ty), mask=asked)
