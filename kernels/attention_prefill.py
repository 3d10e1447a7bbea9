"""Causal attention of rows with several queries each, over what is cached of them and what is new.

One program takes a tile of one row's queries, with all query heads that share a KV head packed into the rows of one
matrix product, and goes over the row's context once, keeping a running softmax (FlashAttention-2: Dao, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .attention_block import attend_block
from .attention_decode import dim_block, gather_context, precision
from .kv_pages import KvPages
from .launch import expect_contiguous, half_type, jit, power_of_two, roomy, takes, tl

TILE_FIELDS = 4


def tile_queries(heads: int, kv_heads: int, head_dim: int) -> int:
    """Queries of one tile: as many as fill the rows of one matrix product, with the heads of a group packed."""
    rows = 128 if head_dim <= 128 else 64
    return max(1, rows // power_of_two(heads // kv_heads))


def pipeline(head_dim: int, narrow: bool, roomy: bool) -> tuple[int, int, int]:
    """Tokens of context at a time, stages of the software pipeline, and warps: as much as spills no registers with
    neither Triton 3.6 nor 3.7, on Ampere, or where it is `roomy`. A narrow cache takes some for its scales and
    conversions."""
    if roomy:
        return _roomy_block(head_dim, narrow), 3, 8
    if narrow:
        return 32, 3 if head_dim in (64, 128) else 2, 8
    if head_dim <= 64:
        return 64, 3, 8
    return (32, 2, 8) if head_dim > 128 else (64, 2, 8)


def _roomy_block(head_dim: int, narrow: bool) -> int:
    if head_dim <= 64:  # two programs fit a multiprocessor: one computes weights while the other multiplies
        return 32 if narrow else 64
    if head_dim <= 128:
        return 64 if narrow else 128
    return 32 if narrow else 64


def plan_tiles(firsts: Sequence[int], counts: Sequence[int], lengths: Sequence[int], queries: int) -> Tensor:
    """Tiles of at most `queries` queries, [tiles, 4] int32 on the CPU: row, its first query's place in the batch, that
    query's position in its row, and how many there are.

    Row r's `counts[r]` queries begin at `firsts[r]` in the batch and are the last of its `lengths[r]` tokens. The
    longest contexts come first, so that the last programs to start are short ones.
    """
    tiles = [
        (row, first + done, length - count + done, min(queries, count - done))
        for row, (first, count, length) in enumerate(zip(firsts, counts, lengths, strict=True))
        for done in range(0, count, queries)
    ]
    tiles.sort(key=lambda tile: -(tile[2] + tile[3]))
    return torch.from_numpy(np.array(tiles, np.int32).reshape(-1, TILE_FIELDS))


def attention_prefill(
    query: Tensor, pages: KvPages, tables: Tensor, tiles: Tensor, scale: float, out: Tensor, *,
    window: int = 0, softcap: float = 0.0,
) -> None:  # fmt: skip
    """Fills the rows of `out` that the tiles cover.

    query: [tokens, heads, head_dim]; tables: [rows, width] int32; tiles: of `plan_tiles` with `tile_queries(...)`, on
    the query's device; out: [tokens, heads * head_dim]. A query at position p sees positions up to p, and with `window`
    no more than so many newest of them; with `softcap`, scores are capped to it by tanh.
    """
    if takes(query):
        _launch(query, pages, tables, tiles, scale, out, window, softcap)
    else:
        attention_prefill_reference(query, pages, tables, tiles, scale, out, window=window, softcap=softcap)


def attention_prefill_reference(
    query: Tensor, pages: KvPages, tables: Tensor, tiles: Tensor, scale: float, out: Tensor, *,
    window: int = 0, softcap: float = 0.0,
) -> None:  # fmt: skip
    """The definition, tile by tile in float64."""
    _, heads, head_dim = query.shape
    kv_heads = pages.keys.shape[2]
    for row, first, position, count in tiles.tolist():
        key, value = gather_context(pages, tables[row], 0, position + count)
        wide = query[first : first + count].double().view(count, kv_heads, heads // kv_heads, head_dim)
        scores = torch.einsum("qkgd,ckd->kgqc", wide, key) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        here = torch.arange(position, position + count, device=query.device).unsqueeze(-1)
        there = torch.arange(position + count, device=query.device)
        hidden = there > here
        if window:
            hidden |= there <= here - window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        found = torch.einsum("kgqc,ckd->qkgd", weights, value).reshape(count, -1)
        out[first : first + count] = found.to(out.dtype)


def _launch(
    query: Tensor, pages: KvPages, tables: Tensor, tiles: Tensor, scale: float, out: Tensor, window: int,
    softcap: float,
) -> None:  # fmt: skip
    if not len(tiles):
        return
    query = query.contiguous()
    expect_contiguous(keys=pages.keys, values=pages.values, tables=tables[0], tiles=tiles, out=out)
    _, heads, head_dim = query.shape
    kv_heads = pages.keys.shape[2]
    narrow = pages.narrow
    group = heads // kv_heads
    queries = tile_queries(heads, kv_heads, head_dim)
    # Whole floats as operands take twice the memory.
    wide = roomy(query.device) and half_type(query.dtype)
    block, stages, warps = pipeline(head_dim, narrow, wide)
    prefill_kernel[(len(tiles), kv_heads)](
        query, pages.keys, pages.values, pages.key_scales if narrow else query,
        pages.value_scales if narrow else query, tables, tiles, out,
        scale, softcap, window, tables.stride(0),
        KV_HEADS=kv_heads, GROUP=group, GROUP_BLOCK=power_of_two(group), ROWS=max(16, queries * power_of_two(group)),
        DIM=head_dim, DIM_BLOCK=dim_block(head_dim), PAGE=pages.page_size, BLOCK=block,
        WINDOW=window > 0, SOFTCAP=softcap > 0, NARROW=narrow, PRECISION=precision(query.dtype),
        UNMASKED=wide, num_warps=warps, num_stages=stages,
    )  # fmt: skip


@jit
def prefill_kernel(
    query: tl.tensor, keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor,
    tables: tl.tensor, tiles: tl.tensor, out: tl.tensor,
    scale: tl.tensor, softcap: tl.tensor, window: tl.tensor, table_width: tl.tensor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_BLOCK: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, NARROW: tl.constexpr, PRECISION: tl.constexpr,
    UNMASKED: tl.constexpr,
) -> None:  # fmt: skip
    """One tile and one KV head. Row m of the products is query m // GROUP_BLOCK, head m % GROUP_BLOCK of the group.

    UNMASKED: blocks that every query sees whole go through a loop of their own, without masks. It takes more registers.
    """
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    row = tl.load(tiles + tile * 4).to(tl.int64)
    first_query = tl.load(tiles + tile * 4 + 1).to(tl.int64)
    position = tl.load(tiles + tile * 4 + 2)
    count = tl.load(tiles + tile * 4 + 3)

    m = tl.arange(0, ROWS)
    which, member = m // GROUP_BLOCK, m % GROUP_BLOCK
    real = (which < count) & (member < GROUP)
    at = tl.arange(0, DIM_BLOCK)
    inside = at < DIM
    asked = real[:, None] & inside[None, :]
    place_of_query = ((first_query + which) * KV_HEADS * GROUP + kv_head * GROUP + member)[:, None] * DIM + at[None, :]
    q = tl.load(query + place_of_query, mask=asked, other=0.0)
    here = position + which

    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, DIM_BLOCK), tl.float32)
    begin = tl.maximum(position - window + 1, 0) // BLOCK * BLOCK if WINDOW else 0
    stop = position + count
    whole = begin
    if UNMASKED and not WINDOW:
        # Blocks that every query of the tile sees whole.
        whole = (position + 1) // BLOCK * BLOCK
        for block in range(0, whole, BLOCK):
            token = block + tl.arange(0, BLOCK)
            page = tl.load(tables + row * table_width + token // PAGE).to(tl.int64)
            place = (page * PAGE + token % PAGE) * KV_HEADS + kv_head
            known = token >= 0
            best, total, sums = attend_block(
                q, keys, values, key_scales, value_scales, place, known, known[None, :], at, inside, best, total, sums,
                scale, softcap, DIM, SOFTCAP, NARROW, PRECISION, False,
            )  # fmt: skip
    for block in range(whole, stop, BLOCK):
        token = block + tl.arange(0, BLOCK)
        known = token < stop
        page = tl.load(tables + row * table_width + token // PAGE, mask=known, other=0).to(tl.int64)
        place = (page * PAGE + token % PAGE) * KV_HEADS + kv_head
        seen = token[None, :] <= here[:, None]
        if WINDOW:
            seen &= token[None, :] > here[:, None] - window
        best, total, sums = attend_block(
            q, keys, values, key_scales, value_scales, place, known, seen, at, inside, best, total, sums,
            scale, softcap, DIM, SOFTCAP, NARROW, PRECISION, True,
        )  # fmt: skip
    # Rows of the product that stand for no query divide by one instead of by what they did not sum.
    found = sums / tl.where(real, total, 1.0)[:, None]
    tl.store(out + place_of_query, found.to(out.dtype.element_ty), mask=asked)
