"""Attention of rows with one query each over their pages: split over the context, with splits of a fixed size.

Each program takes one row, one KV head with all query heads that share it, and one split of the context; a second
kernel merges the splits in their order (Flash-Decoding: Dao, Haziza, Massa and Sizov, 2023). The size of a split does
not depend on the batch, so that neither does the order in which a row's sums are taken: its result has the same bits
alone and in company. A row of more than MOST_PARTS splits has several of them to a program, as many as its own length
says.

The grid is a matter of shapes and of `longest` alone, and lengths are read on the device: what a captured graph needs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_block import attend_block
from .kv_pages import KvPages
from .launch import expect_contiguous, half_type, jit, power_of_two, takes, tl

SPLIT = 256  # tokens of context for one program
MOST_PARTS = 64  # programs for one row and KV head: bounds what the merge reads, and the memory between the two kernels
MERGED = 8  # parts that the merge reads at once
LEAST_ROWS = 16  # of a matrix product, and least inputs


def attention_decode(
    query: Tensor, pages: KvPages, tables: Tensor, lengths: Tensor, scale: float, *,
    longest: int, window: int = 0, softcap: float = 0.0,
) -> Tensor:  # fmt: skip
    """Attention of row r's one query over its `lengths[r]` tokens.

    query: [rows, heads, head_dim]; tables: [rows, width] int32, lengths: [rows] int32, on the query's device; `longest`
    is at least the largest length (a captured graph passes the longest that it serves). With `window`, a query sees no
    more than so many newest tokens; with `softcap`, scores are capped to it by tanh. A row of length 0 gives zeros.
    Returns [rows, heads * head_dim].
    """
    if takes(query):
        return _launch(query, pages, tables, lengths, scale, longest, window, softcap)
    return attention_decode_reference(query, pages, tables, lengths, scale, window=window, softcap=softcap)


def parts_for(longest: int) -> int:
    """Programs for one row and KV head, where no row has more than `longest` tokens."""
    return min(MOST_PARTS, max(1, -(-longest // SPLIT)))


def attention_decode_reference(
    query: Tensor, pages: KvPages, tables: Tensor, lengths: Tensor, scale: float, *, window: int = 0,
    softcap: float = 0.0,
) -> Tensor:  # fmt: skip
    """The definition, row by row in float64. Returns [rows, heads * head_dim] in the dtype of `query`."""
    rows, heads, head_dim = query.shape
    kv_heads = pages.keys.shape[2]
    out = torch.zeros((rows, heads * head_dim), dtype=query.dtype, device=query.device)
    for row, length in enumerate(lengths.tolist()):
        first = max(0, length - window) if window else 0
        if first >= length:
            continue
        key, value = gather_context(pages, tables[row], first, length)
        wide = query[row].double().view(kv_heads, heads // kv_heads, head_dim)
        scores = torch.einsum("kgd,ckd->kgc", wide, key) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        out[row] = torch.einsum("kgc,ckd->kgd", scores.softmax(-1), value).reshape(-1).to(query.dtype)
    return out


def gather_context(pages: KvPages, table: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one row's tokens [first, last), each [tokens, kv_heads, head_dim] float64."""
    tokens = torch.arange(first, last, device=table.device)
    slots = table[tokens // pages.page_size].long() * pages.page_size + tokens % pages.page_size
    found = []
    for cache, scales in ((pages.keys, pages.key_scales), (pages.values, pages.value_scales)):
        wide = cache.view(-1, *cache.shape[2:])[slots].double()
        if scales is not None:
            wide *= scales.view(-1, cache.shape[2])[slots].double().unsqueeze(-1)
        found.append(wide)
    return found[0], found[1]


def _launch(
    query: Tensor, pages: KvPages, tables: Tensor, lengths: Tensor, scale: float, longest: int, window: int,
    softcap: float,
) -> Tensor:  # fmt: skip
    if not len(query):
        return query.new_empty((0, query.shape[1] * query.shape[2]))
    query = query.contiguous()
    expect_contiguous(keys=pages.keys, values=pages.values, tables=tables[0], lengths=lengths)
    rows, heads, head_dim = query.shape
    kv_heads = pages.keys.shape[2]
    parts = parts_for(longest)
    partial = torch.empty((rows, heads, parts, head_dim), dtype=torch.float32, device=query.device)
    weights = torch.empty((rows, heads, parts), dtype=torch.float32, device=query.device)
    narrow = pages.narrow
    group = heads // kv_heads
    block, stages, warps = pipeline(head_dim, narrow)
    decode_kernel[(rows, kv_heads, parts)](
        query, pages.keys, pages.values, pages.key_scales if narrow else query,
        pages.value_scales if narrow else query, tables, lengths, partial, weights,
        scale, softcap, window, tables.stride(0), parts,
        KV_HEADS=kv_heads, GROUP=group, GROUP_BLOCK=max(LEAST_ROWS, power_of_two(group)),
        DIM=head_dim, DIM_BLOCK=dim_block(head_dim), PAGE=pages.page_size, SPLIT=SPLIT, BLOCK=block,
        WINDOW=window > 0, SOFTCAP=softcap > 0, NARROW=narrow, PRECISION=precision(query.dtype),
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return merged(partial, weights, query.dtype)


def merged(partial: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """[rows, heads, parts, head_dim] and log2 of their weights, [rows, heads, parts], both float32 and contiguous, to
    [rows, heads * head_dim]. Parts are MOST_PARTS at most."""
    rows, heads, parts, head_dim = partial.shape
    out = torch.empty((rows, heads * head_dim), dtype=dtype, device=partial.device)
    merge_kernel[(rows, heads)](
        partial, weights, out, parts,
        DIM=head_dim, DIM_BLOCK=dim_block(head_dim), MOST=MOST_PARTS, AT_ONCE=MERGED, num_warps=1,
    )  # fmt: skip
    return out


def pipeline(head_dim: int, narrow: bool) -> tuple[int, int, int]:
    """Tokens of context at a time, stages of the software pipeline, and warps.

    With three stages shared memory has keys and values of two blocks: one is on its way while the other is attended to.
    Blocks of few tokens leave room for several programs on a multiprocessor; a narrow cache's are of more tokens, for
    as many bytes on their way. None spills registers with Triton 3.6 or 3.7, on Ampere or Hopper.
    """
    if head_dim <= 64:
        return 64, 3, 4
    return (64, 3, 8) if narrow and head_dim <= 128 else (32, 3, 4)


def dim_block(head_dim: int) -> int:
    """Elements of a head, filled up to what a matrix product takes."""
    return max(LEAST_ROWS, power_of_two(head_dim))


def precision(dtype: torch.dtype) -> str:
    """How matrix products take their operands: float32 as it is, not rounded to 19 bits."""
    return "tf32" if half_type(dtype) else "ieee"


@jit
def decode_kernel(
    query: tl.tensor, keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor,
    tables: tl.tensor, lengths: tl.tensor,
    partial: tl.tensor, weights: tl.tensor, scale: tl.tensor, softcap: tl.tensor, window: tl.tensor,
    table_width: tl.tensor, parts: tl.tensor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_BLOCK: tl.constexpr, DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, NARROW: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One part of one row: its weighted sum of values in `partial`, and the log2 of its weight in `weights`."""
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(lengths + row)
    first = tl.maximum(length - window, 0) if WINDOW else 0
    chunk = tl.cdiv(tl.cdiv(length, SPLIT), parts) * SPLIT
    start = part * chunk
    stop = tl.minimum(start + chunk, length)

    member = tl.arange(0, GROUP_BLOCK)
    real = member < GROUP
    head = kv_head * GROUP + member
    slot_of_result = (row * KV_HEADS * GROUP + head) * parts + part
    if (start >= stop) | (stop <= first):
        tl.store(weights + slot_of_result, tl.full((GROUP_BLOCK,), float("-inf"), tl.float32), mask=real)
        return

    at = tl.arange(0, DIM_BLOCK)
    inside = at < DIM
    asked = real[:, None] & inside[None, :]
    q = tl.load(query + (row * KV_HEADS * GROUP + head)[:, None] * DIM + at[None, :], mask=asked, other=0.0)
    best = tl.full((GROUP_BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP_BLOCK,), tl.float32)
    sums = tl.zeros((GROUP_BLOCK, DIM_BLOCK), tl.float32)
    begin = tl.maximum(start, first // BLOCK * BLOCK)
    token = begin + tl.arange(0, BLOCK)
    # A block's pages are read while the block before is attended to: keys and values then wait for no table, and the
    # software pipeline has its stages for them.
    page = tl.load(tables + row * table_width + token // PAGE, mask=(token < stop) & (token >= first), other=0)
    for _ in range(begin, stop, BLOCK):
        seen = (token < stop) & (token >= first)
        place = (page.to(tl.int64) * PAGE + token % PAGE) * KV_HEADS + kv_head
        token += BLOCK
        page = tl.load(tables + row * table_width + token // PAGE, mask=token < stop, other=0)
        best, total, sums = attend_block(
            q, keys, values, key_scales, value_scales, place, seen, seen[None, :], at, inside, best, total, sums,
            scale, softcap, DIM, SOFTCAP, NARROW, PRECISION, True,
        )  # fmt: skip
    tl.store(partial + slot_of_result[:, None] * DIM + at[None, :], sums / total[:, None], mask=asked)
    tl.store(weights + slot_of_result, best + tl.log2(total), mask=real)


@jit
def merge_kernel(
    partial: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    MOST: tl.constexpr,
    AT_ONCE: tl.constexpr,
) -> None:
    """The parts of one row and head into one result: all weights first, so that no part waits for the one before.
    Parts that a row does not have add zeros, and take no other part's place in the sum: its bits depend on them not."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    result = row * tl.num_programs(1) + head
    at = tl.arange(0, DIM_BLOCK)
    inside = at < DIM
    every = tl.arange(0, MOST)
    logs = tl.load(weights + result * parts + every, mask=every < parts, other=float("-inf"))
    best = tl.max(logs, 0)
    best = tl.where(best == float("-inf"), 0.0, best)
    total = tl.sum(tl.exp2(logs - best), 0)
    sums = tl.zeros((DIM_BLOCK,), tl.float32)
    for first in range(0, parts, AT_ONCE):
        part = first + tl.arange(0, AT_ONCE)
        weight = tl.exp2(tl.load(weights + result * parts + part, mask=part < parts, other=float("-inf")) - best)
        # What a part without tokens left in `partial` is nothing, and could be NaN.
        asked = (weight != 0.0)[:, None] & inside[None, :]
        here = tl.load(partial + (result * parts + part)[:, None] * DIM + at[None, :], mask=asked, other=0.0)
        sums += tl.sum(here * weight[:, None], 0)
    found = sums / tl.where(total == 0.0, 1.0, total)  # what is not a number stays so, and the sampler tells of it
    tl.store(out + result * DIM + at, found.to(out.dtype.element_ty), mask=inside)
