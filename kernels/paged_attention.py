"""Attention of a mixed batch over the paged KV cache: decode rows and prefill chunks in one call.

Every row has queries for its newest tokens and sees all of its context, whose keys and values already lie in the
cache, those of the new tokens included. What can be worked out once for all layers is in `AttentionBatch`.

The torch reference gathers keys and values by token slot, not by page. That costs the same (measured) and never reads a
slot that does not belong to the row: what a former owner left in a page, be it NaN, cannot reach another sequence.

On CPU a row's result has the same bits, whoever else is in the batch. In float32 and bfloat16 an operation in C follows
the block tables (kernels/native/attention.inc) and takes each query's sums in the order of its context. The torch
reference pads a decode row to a length that follows from its own alone, and lets it share a call only with rows padded
alike.

With a window, a query sees only the newest keys, its own included, and slots of tokens before the first query's window
are not read. Their pages stay with the row all the same: other layers may see all of the context, and a page holds its
tokens for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_choice import chosen
from .attention_decode import attention_decode
from .attention_prefill import TILE_FIELDS, attention_prefill, plan_tiles
from .kv_pages import KvPages, load_heads
from .launch import runs_on
from .native import LANES, native
from .native.tensors import KINDS, native_takes, native_type

CPU_GROUP_TOKENS = 1024  # keys gathered for one call should stay in the second-level cache
CAPPED_SCORES = 1 << 23  # scores held at once where they are capped
CPU_PADDING = 16  # lanes of a vector of float32, which the order of summation depends on

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that the reference attends to in one call: one prefill chunk, or decode rows padded to the longest."""

    start: int  # first query token
    rows: int
    queries: int  # of each row
    context: int  # padded number of keys
    slots: Tensor  # [rows * context] int64
    mask: Tensor | None  # additive, broadcast over heads: [rows, 1, 1, context] or [queries, context]


@dataclass(frozen=True, slots=True)
class PagedRows:
    """The same for the kernels that follow block tables: rows with one query come first, as one launch."""

    tables: Tensor  # [rows, width] int32
    lengths: Tensor  # [decoding] int32
    longest: int  # of `lengths`
    tiles: Tensor  # [tiles, 4] int32, of the rows with several queries
    window: int  # 0 for none
    host: HostRows | None = None  # None where only the device knows
    memo: dict[str, Any] = field(default_factory=dict)  # what others' attention works out once for all layers

    @property
    def decoding(self) -> int:
        return int(self.lengths.shape[0])


class HostRows(NamedTuple):
    """What a PagedRows holds, before it goes to the device."""

    tables: Int32
    lengths: Int32
    tiles: Int32
    longest: int
    counts: Int64  # [rows], queries of each
    contexts: Int32  # [rows], tokens of each


class NativeRows(NamedTuple):
    """The same for the operation in C."""

    tables: Tensor  # [rows, width] int32
    rows: Tensor  # [rows, 3] int32: first query token, queries, context
    tokens: int
    page_size: int
    window: int  # 0 for none


@dataclass(frozen=True)
class AttentionBatch:
    """Which queries see which slots, for one step: made once, used by every layer."""

    paged: PagedRows | None = None
    native: NativeRows | None = None
    plan_groups: Callable[[], tuple[RowGroup, ...]] = tuple

    @cached_property
    def groups(self) -> tuple[RowGroup, ...]:
        """For the torch reference: planned only where it is used."""
        return self.plan_groups()


def plan_attention(
    query_counts: Sequence[int] | Int64,
    context_lengths: Sequence[int] | Int64,
    block_tables: Tensor,
    page_size: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    window: int | None = None,
    queries_a_tile: int = 1,
    invariant: bool = False,
) -> AttentionBatch:
    """Prepares `paged_attention` for one step of the layers that see `window` keys, or all when it is None.

    Row r has `query_counts[r]` queries, the last of its `context_lengths[r]` tokens, in the pages
    `block_tables[r]` ([rows, width] int32 on the CPU; entries past the context are not read). Decode rows (one query)
    are grouped as they come: sorted by length there are fewest groups. Where block tables are followed on the device,
    they have to come before all others, and `queries_a_tile` is `tile_queries` of the model's heads.

    With `invariant` a query's result has the same bits whatever it shares the step with, queries of its own row
    included: on a device every query goes through tiles, and the torch reference takes each one by itself. The
    operation in C is so anyway.

    Raises ValueError for a context that its table has no room for, or that is shorter than its queries.
    """
    counts, lengths = np.asarray(query_counts, np.int64), np.asarray(context_lengths, np.int64)
    rows_of_tables, width = block_tables.shape
    if len(counts) != len(lengths) or len(counts) != rows_of_tables:
        raise ValueError(f"{len(counts)} query counts, {len(lengths)} contexts and {rows_of_tables} block tables")
    if (counts < 0).any() or (counts > lengths).any():
        raise ValueError("a row's queries have to be among the tokens of its context")
    if (lengths > width * page_size).any():
        raise ValueError(f"a context of {lengths.max()} tokens in a block table of {width} pages of {page_size}")
    if runs_on(device):
        host = host_rows(counts, lengths, block_tables.numpy(), queries_a_tile, invariant)
        tables, ends, tiles = (torch.from_numpy(array).to(device, non_blocking=True) for array in host[:3])
        return paged_rows(tables, ends, tiles, host.longest, window, host)

    def groups() -> tuple[RowGroup, ...]:
        shape = (counts, lengths, block_tables)
        if invariant:
            shape = _one_by_one(*shape)
        return _groups(shape[0].tolist(), shape[1].tolist(), shape[2], page_size, device, dtype, window)

    rows: NativeRows | None = None
    if native_type(device, dtype):
        described = np.array((np.cumsum(counts) - counts, counts, lengths), np.int32).T.copy()
        rows = NativeRows(
            block_tables.contiguous(), torch.from_numpy(described), int(counts.sum()), page_size, window or 0
        )
    return AttentionBatch(native=rows, plan_groups=groups)


def _groups(
    counts: list[int],
    lengths: list[int],
    block_tables: Tensor,
    page_size: int,
    device: torch.device,
    dtype: torch.dtype,
    window: int | None,
) -> tuple[RowGroup, ...]:
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


def _one_by_one(counts: Int64, lengths: Int64, tables: Tensor) -> tuple[Int64, Int64, Tensor]:
    """Each query as a row of its own."""
    owners = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    own = lengths[owners] - (ends[owners] - 1 - np.arange(len(owners)))
    return np.ones_like(own), own, tables[torch.from_numpy(owners)]


def host_rows(
    query_counts: Int64, context_lengths: Int64, tables: Int32, queries_a_tile: int, invariant: bool = False
) -> HostRows:
    """The rows as `paged_rows` wants them on the device: rows with one query first, as for `plan_attention`."""
    counts, lengths = query_counts.tolist(), context_lengths.tolist()
    decoding = 0 if invariant else next((row for row, count in enumerate(counts) if count > 1), len(counts))
    firsts = np.cumsum((0, *counts))[decoding:-1].tolist()
    tiles = plan_tiles(firsts, counts[decoding:], lengths[decoding:], queries_a_tile).numpy()
    tiles[:, 0] += decoding
    longest = max(lengths[:decoding], default=0)
    contexts = context_lengths.astype(np.int32)
    return HostRows(tables, contexts[:decoding], tiles, longest, query_counts, contexts)


def paged_rows(
    tables: Tensor, lengths: Tensor, tiles: Tensor, longest: int, window: int | None, host: HostRows | None = None
) -> AttentionBatch:
    """The batch of a HostRows whose arrays lie on the device now: for each window without another copy."""
    return AttentionBatch(paged=PagedRows(tables, lengths, longest, tiles, window or 0, host))


def plan_decode(
    tables: Tensor, lengths: Tensor, page_size: int, *, longest: int, dtype: torch.dtype, window: int | None = None,
    invariant: bool = False,
) -> AttentionBatch:  # fmt: skip
    """As `plan_attention`, for rows with one query each whose block tables and lengths lie on the device already.

    tables: [rows, width] int32; lengths: [rows] int32, 1 at least and `longest` at most. Where the kernels run, nothing
    is read on the host, so that a captured step does what both hold when it is replayed; elsewhere they are read when
    attention runs, and the batch is good for that once.
    """
    rows = len(lengths)
    if runs_on(lengths.device):
        if invariant:
            row = torch.arange(rows, dtype=torch.int32, device=lengths.device)
            tiles = torch.stack((row, row, lengths - 1, torch.ones_like(row)), -1)
            return paged_rows(tables, lengths[:0], tiles, longest, window)
        return paged_rows(tables, lengths, lengths.new_empty((0, TILE_FIELDS)), longest, window)

    def groups() -> tuple[RowGroup, ...]:
        return _groups([1] * rows, lengths.tolist(), tables, page_size, lengths.device, dtype, window)

    native_rows: NativeRows | None = None
    if native_type(lengths.device, dtype):
        first = torch.arange(rows, dtype=torch.int32)
        described = torch.stack((first, torch.ones_like(first), lengths), -1)
        native_rows = NativeRows(tables, described, rows, page_size, window or 0)
    return AttentionBatch(native=native_rows, plan_groups=groups)


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


def paged_attention(query: Tensor, pages: KvPages, batch: AttentionBatch, scale: float, softcap: float = 0.0) -> Tensor:
    """Causal attention of each query over its row's context, or the window of it that `batch` was planned for.

    query: [tokens, heads, head_dim]; heads is a multiple of the cache's kv_heads. Scores become softcap *
    tanh(score / softcap) where `softcap` is above 0 (Gemma 2). Returns [tokens, heads * head_dim].
    """
    if batch.paged is not None:
        return _follow_tables(query, pages, batch.paged, scale, softcap)
    plain = not softcap and query.shape[-1] % LANES == 0 and query.dtype == pages.keys.dtype
    if batch.native is not None and plain and native_takes(pages.keys, pages.values):
        return _in_c(query.contiguous(), pages.keys, pages.values, batch.native, scale)
    outputs = [_attend(query, pages, group, scale, softcap) for group in batch.groups]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _in_c(query: Tensor, key_cache: Tensor, value_cache: Tensor, rows: NativeRows, scale: float) -> Tensor:
    assert native_takes(query, key_cache, value_cache), "planned for what the operation in C takes"
    tokens, heads, head_dim = query.shape
    pages, page_size, kv_heads, _ = key_cache.shape
    assert tokens == rows.tokens and page_size == rows.page_size, "planned for this batch and this cache"
    assert key_cache.shape == value_cache.shape and key_cache.shape[3] == head_dim and heads % kv_heads == 0
    out = torch.empty((tokens, heads * head_dim), dtype=query.dtype)
    native.attend(
        KINDS[query.dtype], query.data_ptr(), key_cache.data_ptr(), value_cache.data_ptr(), rows.tables.data_ptr(),
        rows.rows.data_ptr(), out.data_ptr(), rows.rows.shape[0], rows.tables.shape[1], pages, page_size, kv_heads,
        heads // kv_heads, head_dim, rows.window, scale,
    )  # fmt: skip
    return out


def _follow_tables(query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
    heads, head_dim = query.shape[1:]
    query = query.contiguous()
    if not len(rows.tiles):
        return _decoded(query, pages, rows, scale, softcap)
    out = torch.empty((len(query), heads * head_dim), dtype=query.dtype, device=query.device)
    if rows.decoding:
        out[: rows.decoding] = _decoded(query[: rows.decoding], pages, rows, scale, softcap)
    if chosen.prefill is not None:
        out[rows.decoding :] = chosen.prefill.prefill(query[rows.decoding :], pages, rows, scale, softcap)
    else:
        attention_prefill(query, pages, rows.tables, rows.tiles, scale, out, window=rows.window, softcap=softcap)
    return out


def _decoded(query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
    if chosen.decode is not None:
        return chosen.decode.decode(query, pages, rows, scale, softcap)
    return attention_decode(
        query, pages, rows.tables, rows.lengths, scale, longest=rows.longest, window=rows.window, softcap=softcap
    )


def _attend(query: Tensor, pages: KvPages, group: RowGroup, scale: float, softcap: float) -> Tensor:
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


def attention_reference(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None, softcap: float = 0.0
) -> Tensor:
    """One row by the definition, in float64. query: [queries, heads, head_dim], the last of the context;
    key, value: [context, kv_heads, head_dim]. Returns [queries, heads * head_dim] float64."""
    queries, heads, head_dim = query.shape
    context, kv_heads, _ = key.shape
    wide = query.double().view(queries, kv_heads, heads // kv_heads, head_dim)
    scores = torch.einsum("qkgd,ckd->kgqc", wide, key.double()) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(context - queries, context).unsqueeze(-1) - torch.arange(context)
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("kgqc,ckd->qkgd", weights, value.double()).reshape(queries, heads * head_dim)
