"""Attention of a mixed batch over the paged KV cache: decode rows and prefill chunks in one call.

Every row has queries for its newest tokens and sees all of its context, whose keys and values already lie in the
cache, those of the new tokens included. What can be worked out once for all layers is in `AttentionBatch`.

There are three ways. On a device, kernels follow the block tables (attention_rows.py). On CPU an operation in C does
so in float32 and bfloat16 (kernels/native/attention.inc), and takes each query's sums in the order of its context. Else
the torch reference goes over groups of rows (attention_groups.py). On CPU a row's result has the same bits either way,
whoever else is in the batch.

With a window, a query sees only the newest keys, its own included, and slots of tokens before the first query's window
are not read. Their pages stay with the row all the same: other layers may see all of the context, and a page holds its
tokens for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .attention_groups import RowGroup, attend_group, one_by_one, plan_groups
from .attention_prefill import TILE_FIELDS
from .attention_rows import HostRows, PagedRows, follow_tables, host_rows
from .kv_pages import KvPages
from .launch import runs_on
from .native import LANES, native
from .native.tensors import KINDS, native_takes, native_type

Int64 = npt.NDArray[np.int64]


class NativeRows(NamedTuple):
    """A step's rows for the operation in C."""

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
            shape = one_by_one(*shape)
        return plan_groups(shape[0].tolist(), shape[1].tolist(), shape[2], page_size, device, dtype, window)

    rows: NativeRows | None = None
    if native_type(device, dtype):
        described = np.array((np.cumsum(counts) - counts, counts, lengths), np.int32).T.copy()
        rows = NativeRows(
            block_tables.contiguous(), torch.from_numpy(described), int(counts.sum()), page_size, window or 0
        )
    return AttentionBatch(native=rows, plan_groups=groups)


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
        return plan_groups([1] * rows, lengths.tolist(), tables, page_size, lengths.device, dtype, window)

    native_rows: NativeRows | None = None
    if native_type(lengths.device, dtype):
        first = torch.arange(rows, dtype=torch.int32)
        described = torch.stack((first, torch.ones_like(first), lengths), -1)
        native_rows = NativeRows(tables.contiguous(), described, rows, page_size, window or 0)
    return AttentionBatch(native=native_rows, plan_groups=groups)


def paged_attention(query: Tensor, pages: KvPages, batch: AttentionBatch, scale: float, softcap: float = 0.0) -> Tensor:
    """Causal attention of each query over its row's context, or the window of it that `batch` was planned for.

    query: [tokens, heads, head_dim]; heads is a multiple of the cache's kv_heads. Scores become softcap *
    tanh(score / softcap) where `softcap` is above 0 (Gemma 2). Returns [tokens, heads * head_dim].
    """
    if batch.paged is not None:
        return follow_tables(query, pages, batch.paged, scale, softcap)
    plain = not softcap and query.shape[-1] % LANES == 0 and query.dtype == pages.keys.dtype
    if batch.native is not None and plain and native_takes(pages.keys, pages.values):
        return _in_c(query.contiguous(), pages.keys, pages.values, batch.native, scale)
    outputs = [attend_group(query, pages, group, scale, softcap) for group in batch.groups]
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
        rows.rows.data_ptr(), out.data_ptr(), tokens, rows.rows.shape[0], rows.tables.shape[1], pages, page_size,
        kv_heads, heads // kv_heads, head_dim, rows.window, scale,
    )  # fmt: skip
    return out


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
