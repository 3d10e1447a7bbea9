"""Rows whose attention follows block tables on the device: how they are laid out there, and which kernels take them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .attention_choice import chosen
from .attention_decode import attention_decode
from .attention_prefill import attention_prefill, plan_tiles
from .kv_pages import KvPages

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PagedRows:
    """A step's rows on the device: those with one query come first, as one launch."""

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


def host_rows(
    query_counts: Int64, context_lengths: Int64, tables: Int32, queries_a_tile: int, invariant: bool = False
) -> HostRows:
    """The rows as they are to lie on the device: those with one query first, as for `plan_attention`."""
    counts, lengths = query_counts.tolist(), context_lengths.tolist()
    decoding = 0 if invariant else next((row for row, count in enumerate(counts) if count > 1), len(counts))
    firsts = np.cumsum((0, *counts))[decoding:-1].tolist()
    tiles = plan_tiles(firsts, counts[decoding:], lengths[decoding:], queries_a_tile).numpy()
    tiles[:, 0] += decoding
    longest = max(lengths[:decoding], default=0)
    contexts = context_lengths.astype(np.int32)
    return HostRows(tables, contexts[:decoding], tiles, longest, query_counts, contexts)


def follow_tables(query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
    """As `paged_attention`, by the kernels, or by what was chosen in their place."""
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
