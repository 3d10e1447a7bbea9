"""The torch reference of paged attention: groups of rows, each in one call.

Keys and values are gathered by token slot, not by page. That costs the same (measured) and never reads a slot that does
not belong to the row: what a former owner left in a page, be it NaN, cannot reach another sequence.

On CPU a decode row is padded to a length that follows from its own alone, and shares a call only with rows padded
alike: its result has the same bits, whoever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .kv_pages import KvPages, load_heads

CPU_GROUP_TOKENS = 1024  # keys gathered for one call should stay in the second-level cache
CAPPED_SCORES = 1 << 23  # scores held at once where they are capped
CPU_PADDING = 16  # lanes of a vector of float32, which the order of summation depends on

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that are attended to in one call: one prefill chunk, or decode rows padded to the longest."""

    start: int  # first query token
    rows: int
    queries: int  # of each row
    context: int  # padded number of keys
    slots: Tensor  # [rows * context] int64
    mask: Tensor | None  # additive, broadcast over heads: [rows, 1, 1, context] or [queries, context]


def plan_groups(
    counts: list[int],
    lengths: list[int],
    block_tables: Tensor,
    page_size: int,
    device: torch.device,
    dtype: torch.dtype,
    window: int | None,
) -> tuple[RowGroup, ...]:
    """The groups of rows of these queries and context lengths, as for `plan_attention`."""
    on_cpu = device.type == "cpu"
    groups: list[RowGroup] = []
    first, token = 0, 0
    while first < len(counts):
        queries, last = counts[first], first + 1
        if queries > 1:
            made = [_chunk(token, queries, lengths[first], block_tables[first:last], page_size, dtype, window)]
        else:
            while last < len(counts) and counts[last] == 1:
                last += 1
            made = _decode(token, lengths[first:last], block_tables[first:last], page_size, dtype, on_cpu, window)
        groups += made if on_cpu else [_moved(group, device) for group in made]
        first, token = last, token + queries * (last - first)
    return tuple(groups)


def one_by_one(counts: Int64, lengths: Int64, tables: Tensor) -> tuple[Int64, Int64, Tensor]:
    """Each query as a row of its own."""
    owners = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    own = lengths[owners] - (ends[owners] - 1 - np.arange(len(owners)))
    return np.ones_like(own), own, tables[torch.from_numpy(owners)]


def _moved(group: RowGroup, device: torch.device) -> RowGroup:
    slots = group.slots.to(device, non_blocking=True)
    mask = None if group.mask is None else group.mask.to(device, non_blocking=True)
    return RowGroup(group.start, group.rows, group.queries, group.context, slots, mask)


def _padded(length: int) -> int:
    """The length up to which a decode row is padded on CPU: at most an eighth longer, or to a whole vector."""
    step = max(CPU_PADDING, (1 << (length - 1).bit_length()) // 8)
    return -(-length // step) * step


_known_places: dict[int, tuple[Tensor, Tensor]] = {}  # by page size, for as many tokens as were ever asked for


def _places(context: int, page_size: int) -> tuple[Tensor, Tensor]:
    """Page and offset in the page of the first `context` tokens of any row, each [context] int64."""
    known = _known_places.get(page_size)
    if known is None or known[0].shape[0] < context:
        tokens = torch.arange(1 << (context - 1).bit_length())
        known = _known_places[page_size] = tokens // page_size, tokens % page_size
    return known[0][:context], known[1][:context]


def _slots_of(table: Tensor, context: int, page_size: int) -> Tensor:
    """Slots of the first `context` tokens: [rows, width] block table to [rows, context] int64.

    Where `context` goes beyond the table, the slots are those of its last page, for the caller to replace.
    """
    pages, offsets = _places(context, page_size)
    if context > table.shape[1] * page_size:
        pages = pages.clamp(max=table.shape[1] - 1)
    return table.index_select(1, pages).to(torch.int64).mul_(page_size).add_(offsets)


def _slots_from(table: Tensor, starts: Tensor, context: int, page_size: int) -> Tensor:
    """As `_slots_of`, for the `context` tokens from `starts` ([rows, 1] int64) on."""
    tokens = starts + _places(context, 1)[0]
    pages = (tokens // page_size).clamp_(max=table.shape[1] - 1)
    return table.gather(1, pages).to(torch.int64).mul_(page_size).add_(tokens % page_size)


def _decode(
    token: int,
    lengths: Sequence[int],
    table: Tensor,
    page_size: int,
    dtype: torch.dtype,
    on_cpu: bool,
    window: int | None,
) -> list[RowGroup]:
    """Groups of decode rows that follow each other: on CPU those padded alike, elsewhere all in one."""
    seen = lengths if window is None else [min(length, window) for length in lengths]
    padded = [_padded(length) for length in seen] if on_cpu else [max(seen)] * len(seen)
    longest = max(padded)
    if window is None or window >= max(lengths):
        slots = _slots_of(table, longest, page_size)
    else:
        starts = torch.tensor([max(0, length - window) for length in lengths]).unsqueeze(-1)
        slots = _slots_from(table, starts, longest, page_size)
    mask = None
    if min(seen) < longest:
        valid = _places(longest, 1)[0] < torch.tensor(seen).unsqueeze(-1)
        # Padding points at the first token that the row sees: memory of its own, and its weight is exactly zero.
        slots = torch.where(valid, slots, slots[:, :1])
        mask = torch.where(valid, 0.0, -torch.inf).to(dtype)[:, None, None, :]
    groups, first = [], 0
    while first < len(seen):
        context, last = padded[first], first + 1
        most = max(1, CPU_GROUP_TOKENS // context) if on_cpu else len(seen)
        while last < len(seen) and padded[last] == context and last - first < most:
            last += 1
        full = mask is None or min(seen[first:last]) == context
        shown = None if full or mask is None else mask[first:last, ..., :context]
        groups.append(RowGroup(token + first, last - first, 1, context, slots[first:last, :context].reshape(-1), shown))
        first = last
    return groups


def _chunk(
    token: int, queries: int, context: int, table: Tensor, page_size: int, dtype: torch.dtype, window: int | None
) -> RowGroup:
    """A row with several queries: a prompt, or a part of one. Keys begin with the first that the first query sees."""
    window = context if window is None else window
    start = max(0, context - queries + 1 - window)
    keys = context - start
    if start:
        slots = _slots_from(table, torch.tensor([[start]]), keys, page_size).reshape(-1)
    else:
        slots = _slots_of(table, keys, page_size).reshape(-1)
    mask = None
    if queries < keys or window < keys:  # a whole prompt is plainly causal; a chunk sees its prefix too
        mask = torch.full((queries, keys), -torch.inf, dtype=dtype).triu_(keys - queries + 1)
        if window < keys:
            mask += torch.full((queries, keys), -torch.inf, dtype=dtype).tril_(keys - queries - window)
    return RowGroup(token, 1, queries, keys, slots, mask)


def attend_group(query: Tensor, pages: KvPages, group: RowGroup, scale: float, softcap: float) -> Tensor:
    """Attention of one group's queries, among those of `query` [tokens, heads, head_dim]. Returns [its tokens,
    heads * head_dim]."""
    heads, head_dim = query.shape[1:]
    kv_heads = pages.keys.shape[2]
    shared = heads // kv_heads
    rows, queries, context = group.rows, group.queries, group.context
    part = query[group.start : group.start + rows * queries]
    key = load_heads(pages.keys, pages.key_scales, group.slots, query.dtype)
    value = load_heads(pages.values, pages.value_scales, group.slots, query.dtype)
    if queries == 1:
        # The query heads that share a KV head stand as its queries: no copy of keys and values for each of them.
        key = key.view(rows, context, kv_heads, head_dim).transpose(1, 2)
        value = value.view(rows, context, kv_heads, head_dim).transpose(1, 2)
        part = part.view(rows, kv_heads, shared, head_dim)
        if softcap:
            # Contiguous, because products of one row and of several would otherwise go different ways, with other bits.
            key, value = key.contiguous(), value.contiguous()
            return _capped(part, key, value, group.mask, scale, softcap).reshape(rows, heads * head_dim)
        out = F.scaled_dot_product_attention(part, key, value, attn_mask=group.mask, scale=scale)
        return out.reshape(rows, heads * head_dim)
    if softcap:
        return _capped_chunk(part, key, value, group, scale, softcap)
    # Batch = KV head, head = the query heads that share it, over keys and values of stride zero.
    key = key.view(context, kv_heads, 1, head_dim).permute(1, 2, 0, 3).expand(-1, shared, -1, -1)
    value = value.view(context, kv_heads, 1, head_dim).permute(1, 2, 0, 3).expand(-1, shared, -1, -1)
    part = part.view(queries, kv_heads, shared, head_dim).permute(1, 2, 0, 3)
    causal = group.mask is None
    out = F.scaled_dot_product_attention(part, key, value, attn_mask=group.mask, is_causal=causal, scale=scale)
    return out.permute(2, 0, 1, 3).reshape(queries, heads * head_dim)


def _capped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float) -> Tensor:
    """Attention with capped scores, which torch's own has no place for. The operands are [..., queries or keys,
    head_dim]; `mask` is additive."""
    scores = torch.matmul(query * (scale / softcap), key.transpose(-1, -2)).float().tanh_().mul_(softcap)
    if mask is not None:
        scores += mask
    return torch.matmul(scores.softmax(-1).to(value.dtype), value)


def _capped_chunk(part: Tensor, key: Tensor, value: Tensor, group: RowGroup, scale: float, softcap: float) -> Tensor:
    """The row of a chunk, some queries at a time: the scores of all of them could be gigabytes."""
    queries, heads, head_dim = part.shape
    context = group.context
    key, value = (x.view(context, -1, head_dim).transpose(0, 1) for x in (key, value))
    kv_heads = key.shape[0]
    mask = group.mask
    if mask is None:
        mask = torch.full((queries, context), -torch.inf, dtype=part.dtype, device=part.device).triu_(1)
    step = max(1, CAPPED_SCORES // (heads * context))
    outputs = []
    for first in range(0, queries, step):
        shown = mask[first : first + step]
        block = part[first : first + step].view(len(shown), kv_heads, -1, head_dim).transpose(0, 1)
        # Queries and the heads that share a KV head stand in one dimension, so that keys and values are not copied.
        block = block.reshape(kv_heads, -1, head_dim)
        out = _capped(block, key, value, shown.repeat_interleave(heads // kv_heads, 0), scale, softcap)
        outputs.append(out.view(kv_heads, len(shown), -1).transpose(0, 1).reshape(len(shown), heads * head_dim))
    return torch.cat(outputs)
