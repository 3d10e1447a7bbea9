"""Attention of others in place of Headway's own kernels, where it is installed: FlashInfer and FlashAttention.

A way takes the rows of a step as they lie, block tables and pages included. `rows.memo` is for what it works out once
for all layers. Both libraries see Headway's cache as it is: pages of [page_size, kv_heads, head_dim].
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .kv_pages import KvPages

if TYPE_CHECKING:
    from .attention_rows import HostRows, PagedRows

WORKSPACE_BYTES = 128 << 20  # what FlashInfer's documentation recommends
FLASH2_PAGE = 256  # FlashAttention 2 wants pages of a multiple of it


class AttentionShape(NamedTuple):
    """What a way has to serve. `captured`: decode steps are captured, so that nothing may be planned on the host."""

    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    dtype: torch.dtype
    kv_dtype: torch.dtype
    captured: bool


class Way(Protocol):
    """An implementation. `decode` and `prefill` say of a shape why they do not serve it; "" where they do."""

    name: str

    def refuses_decode(self, shape: AttentionShape) -> str: ...

    def refuses_prefill(self, shape: AttentionShape) -> str: ...

    def decode(self, query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
        """As attention_decode: [rows, heads, head_dim] to [rows, heads * head_dim]."""
        ...

    def prefill(self, query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
        """Of the rows with several queries, whose queries alone are in `query`, [tokens, heads, head_dim]."""
        ...


class FlashInfer:
    """Its wrappers for paged decode and prefill (docs.flashinfer.ai). They plan each step on the host."""

    name = "flashinfer"

    def __init__(self, module: Any) -> None:
        self._module = module
        self._workspace: Tensor | None = None
        self._wrappers: dict[tuple[str, int], Any] = {}

    def refuses_decode(self, shape: AttentionShape) -> str:
        return "it plans on the host, and decode steps are captured" if shape.captured else self.refuses_prefill(shape)

    def refuses_prefill(self, shape: AttentionShape) -> str:
        if shape.dtype not in (torch.float16, torch.bfloat16) or shape.kv_dtype != shape.dtype:
            return "it takes half types, and a cache of the model's own"
        return "" if shape.head_dim in (64, 128, 256) else f"it has no heads of {shape.head_dim}"

    def decode(self, query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
        wrapper = rows.memo.get("flashinfer decode")
        if wrapper is None:
            wrapper = rows.memo["flashinfer decode"] = self._wrapper("decode", rows.window, query.device)
            host = _host_of(rows)
            wrapper.plan(
                *_page_lists(host, slice(0, rows.decoding), pages.page_size),
                query.shape[1], pages.keys.shape[2], query.shape[2], pages.page_size,
                window_left=rows.window - 1, logits_soft_cap=softcap, q_data_type=query.dtype,
                kv_data_type=pages.keys.dtype, sm_scale=scale,
            )  # fmt: skip
        return _flat(wrapper.run(query, (pages.keys, pages.values)))

    def prefill(self, query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
        wrapper = rows.memo.get("flashinfer prefill")
        if wrapper is None:
            wrapper = rows.memo["flashinfer prefill"] = self._wrapper("prefill", rows.window, query.device)
            host = _host_of(rows)
            part = slice(rows.decoding, None)
            wrapper.plan(
                _sums(host.counts[part]), *_page_lists(host, part, pages.page_size),
                query.shape[1], pages.keys.shape[2], query.shape[2], pages.page_size,
                causal=True, window_left=rows.window - 1, logits_soft_cap=softcap, sm_scale=scale,
                q_data_type=query.dtype, kv_data_type=pages.keys.dtype,
            )  # fmt: skip
        return _flat(wrapper.run(query, (pages.keys, pages.values)))

    def _wrapper(self, kind: str, window: int, device: torch.device) -> Any:
        """One for each window: a wrapper holds one plan at a time."""
        if self._workspace is None:
            self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        if (kind, window) not in self._wrappers:
            make = {
                "decode": self._module.BatchDecodeWithPagedKVCacheWrapper,
                "prefill": self._module.BatchPrefillWithPagedKVCacheWrapper,
            }[kind]
            extra = {"use_tensor_cores": True} if kind == "decode" else {}
            self._wrappers[kind, window] = make(self._workspace, "NHD", **extra)
        return self._wrappers[kind, window]


class FlashAttention:
    """flash_attn_with_kvcache of FlashAttention 3 (flash_attn_interface) or 2 (flash_attn), which reads tables and
    lengths on the device."""

    name = "flash-attention"

    def __init__(self, module: Any, version: int) -> None:
        self._call: Callable[..., Tensor] = module.flash_attn_with_kvcache
        self._version = version

    def refuses_decode(self, shape: AttentionShape) -> str:
        if shape.dtype not in (torch.float16, torch.bfloat16) or shape.kv_dtype != shape.dtype:
            return "it takes half types, and a cache of the model's own"
        if self._version == 2 and shape.page_size % FLASH2_PAGE:
            return f"version 2 wants pages of {FLASH2_PAGE} tokens, and they have {shape.page_size}"
        return "" if shape.head_dim <= 256 else f"it has no heads of {shape.head_dim}"

    def refuses_prefill(self, shape: AttentionShape) -> str:
        return "version 2 takes no chunks of different lengths" if self._version == 2 else self.refuses_decode(shape)

    def decode(self, query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
        tables = rows.tables[: rows.decoding]
        where = {"block_table" if self._version == 2 else "page_table": tables}
        out = self._call(
            query.unsqueeze(1), pages.keys, pages.values, cache_seqlens=rows.lengths, softmax_scale=scale,
            causal=True, window_size=_window(rows), softcap=softcap, **where,
        )  # fmt: skip
        return _flat(out.squeeze(1))

    def prefill(self, query: Tensor, pages: KvPages, rows: PagedRows, scale: float, softcap: float) -> Tensor:
        planned = rows.memo.get("flash-attention prefill")
        if planned is None:
            host = _host_of(rows)
            counts, contexts = host.counts[rows.decoding :], host.contexts[rows.decoding :]
            starts, lengths = (part.to(query.device) for part in (_sums(counts), torch.from_numpy(contexts)))
            planned = rows.memo["flash-attention prefill"] = starts, lengths, int(counts.max())
        starts, lengths, longest = planned
        out = self._call(
            query, pages.keys, pages.values, cache_seqlens=lengths, page_table=rows.tables[rows.decoding :],
            cu_seqlens_q=starts, max_seqlen_q=longest, softmax_scale=scale, causal=True, window_size=_window(rows),
            softcap=softcap,
        )  # fmt: skip
        return _flat(out)


def installed() -> list[Way]:
    """Those that can be imported here."""
    found: list[Way] = []
    for name, make in (
        ("flashinfer", FlashInfer),
        ("flash_attn_interface", lambda module: FlashAttention(module, 3)),
        ("flash_attn", lambda module: FlashAttention(module, 2)),
    ):
        try:
            found.append(make(importlib.import_module(name)))
        except (ImportError, OSError, AttributeError, RuntimeError):
            continue
    names = [way.name for way in found]
    return [way for index, way in enumerate(found) if way.name not in names[:index]]


def _host_of(rows: PagedRows) -> HostRows:
    assert rows.host is not None, "a captured step has no plan on the host, and this way is not chosen for one"
    return rows.host


def _sums(counts: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))


def _page_lists(host: HostRows, part: slice, page_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each row's pages begin in the list of all, that list, and how many tokens each row's last page has."""
    contexts = host.contexts[part]
    used = -(-contexts // page_size)
    pages = np.concatenate([table[:count] for table, count in zip(host.tables[part], used, strict=True)])
    last = contexts - (used - 1) * page_size
    return _sums(used), torch.from_numpy(pages.astype(np.int32)), torch.from_numpy(last.astype(np.int32))


def _window(rows: PagedRows) -> tuple[int, int]:
    return (rows.window - 1, 0) if rows.window else (-1, -1)


def _flat(out: Tensor) -> Tensor:
    return out.reshape(len(out), -1)
