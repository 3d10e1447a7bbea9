"""Others' attention: called as its documentation says, held to Headway's result, and chosen only when faster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headway.kernels import attention_choice, attention_ways, paged_attention
from headway.kernels.attention_choice import OWN, choose, chosen
from headway.kernels.attention_ways import AttentionShape, FlashAttention, FlashInfer, installed
from headway.kernels.kv_pages import KvPages
from headway.kernels.paged_attention import attention_reference, plan_attention

CPU = torch.device("cpu")
HEADS, KV_HEADS, DIM, PAGE = 4, 2, 64, 16
SHAPE = AttentionShape(HEADS, KV_HEADS, DIM, PAGE, torch.bfloat16, torch.bfloat16, captured=False)


def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float, window_left: int, softcap: float) -> Tensor:
    """[queries, heads, dim], the newest of [context, kv_heads, dim]."""
    window = None if window_left < 0 else window_left + 1
    out = attention_reference(query.float(), keys.float(), values.float(), scale, window, softcap)
    return out.view(query.shape).to(query.dtype)


class Wrapper:
    """FlashInfer's, by its documentation: plans on the host's lists of pages, runs over (keys, values)."""

    plans = 0

    def __init__(self, workspace: Tensor, layout: str, **extra: Any) -> None:
        assert workspace.dtype == torch.uint8 and layout == "NHD"

    def take(self, counts: list[int], indptr: Tensor, pages: Tensor, last: Tensor, *sizes: int, **how: Any) -> None:
        assert sizes == (HEADS, KV_HEADS, DIM, PAGE) and how["q_data_type"] == how["kv_data_type"] == torch.bfloat16
        for part in (indptr, pages, last):
            assert part.dtype == torch.int32 and part.device == CPU
        assert len(indptr) == len(last) + 1 == len(counts) + 1 and int(indptr[-1]) == len(pages)
        assert int(last.min()) >= 1 and int(last.max()) <= PAGE
        self.counts, self.indptr, self.pages, self.last, self.how = counts, indptr.tolist(), pages, last.tolist(), how
        Wrapper.plans += 1

    def run(self, query: Tensor, cache: tuple[Tensor, Tensor]) -> Tensor:
        assert query.shape == (sum(self.counts), HEADS, DIM)
        parts = []
        for row, part in enumerate(query.split(self.counts)):
            mine = self.pages[self.indptr[row] : self.indptr[row + 1]].long()
            context = (len(mine) - 1) * PAGE + self.last[row]
            keys, values = (one[mine].flatten(0, 1)[:context] for one in cache)
            how = self.how
            parts.append(attend(part, keys, values, how["sm_scale"], how["window_left"], how["logits_soft_cap"]))
        return torch.cat(parts)


class DecodeWrapper(Wrapper):
    def plan(self, indptr: Tensor, pages: Tensor, last: Tensor, *sizes: int, **how: Any) -> None:
        self.take([1] * len(last), indptr, pages, last, *sizes, **how)


class PrefillWrapper(Wrapper):
    def plan(self, queries: Tensor, indptr: Tensor, pages: Tensor, last: Tensor, *sizes: int, **how: Any) -> None:
        assert how["causal"] and queries.dtype == torch.int32
        self.take(queries.diff().tolist(), indptr, pages, last, *sizes, **how)


def flash_attn_with_kvcache(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, *, cache_seqlens: Tensor, softmax_scale: float, causal: bool,
    window_size: tuple[int, int], softcap: float, page_table: Tensor | None = None, block_table: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None, max_seqlen_q: int | None = None,
) -> Tensor:  # fmt: skip
    """FlashAttention's, by its documentation, versions 2 and 3."""
    tables = page_table if block_table is None else block_table
    assert causal and tables is not None and cache_seqlens.dtype == tables.dtype == torch.int32
    if cu_seqlens_q is None:
        assert q.dim() == 4 and q.shape[1] == 1 and len(q) == len(tables) == len(cache_seqlens)
        parts = list(q)
    else:
        counts = cu_seqlens_q.diff().tolist()
        assert cu_seqlens_q.dtype == torch.int32 and max_seqlen_q == max(counts)
        parts = list(q.split(counts))
    found = []
    for row, part in enumerate(parts):
        length = int(cache_seqlens[row])
        mine = tables[row, : -(-length // PAGE)].long()
        keys, values = (one[mine].flatten(0, 1)[:length] for one in (k_cache, v_cache))
        assert window_size == (-1, -1) or window_size[1] == 0
        found.append(attend(part, keys, values, softmax_scale, window_size[0], softcap))
    return torch.stack(found) if cu_seqlens_q is None else torch.cat(found)


FLASHINFER = SimpleNamespace(
    BatchDecodeWithPagedKVCacheWrapper=DecodeWrapper, BatchPrefillWithPagedKVCacheWrapper=PrefillWrapper
)
FLASH = SimpleNamespace(flash_attn_with_kvcache=flash_attn_with_kvcache)


@pytest.fixture(autouse=True)
def own_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(paged_attention, "runs_on", lambda device: True)  # by the references, that is
    monkeypatch.setattr(attention_ways, "WORKSPACE_BYTES", 64)
    yield
    chosen.decode = chosen.prefill = None


@pytest.mark.parametrize("way", [FlashInfer(FLASHINFER), FlashAttention(FLASH, 3)], ids=["flashinfer", "flash"])
@pytest.mark.parametrize(("window", "softcap"), [(None, 0.0), (20, 0.0), (None, 5.0), (7, 3.0)])
def test_a_mixed_batch_by_each_way(way: Any, window: int | None, softcap: float) -> None:
    torch.manual_seed(1)
    counts, lengths = np.array([1, 1, 5, 1 + 40]), np.array([33, 16, 37, 41])
    tables = torch.randperm(4 * 4, dtype=torch.int32).view(4, 4)
    shape = (16, PAGE, KV_HEADS, DIM)
    pages = KvPages(*(torch.randn(shape).to(torch.bfloat16) for _ in range(2)))
    query = torch.randn(int(counts.sum()), HEADS, DIM).to(torch.bfloat16)
    results = []
    for other in (None, way):
        chosen.decode = chosen.prefill = other
        for part in (slice(None), slice(0, 2)):  # with prompts, and decoding alone
            batch = plan_attention(
                counts[part], lengths[part], tables[part], PAGE, device=CPU, dtype=torch.bfloat16, window=window,
                queries_a_tile=8,
            )  # fmt: skip
            tokens = int(counts[part].sum())
            plans = Wrapper.plans
            results += [paged_attention.paged_attention(query[:tokens], pages, batch, 0.3, softcap) for _ in range(2)]
            assert Wrapper.plans - plans <= (2 if part == slice(None) else 1), "planned once for all layers"
    for own, theirs in zip(results[:4], results[4:], strict=True):
        torch.testing.assert_close(theirs, own, rtol=2e-2, atol=2e-2)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_choice, "DECODES", ((2, 20),))
    monkeypatch.setattr(attention_choice, "PREFILLS", ((2, 3, 20),))


class Timer:
    """Says that each run took less than the one before."""

    def __init__(self, factor: float) -> None:
        self.now, self.factor = 1.0, factor

    def __call__(self, run: Any) -> float:
        run()
        self.now *= self.factor
        return self.now


def test_the_fastest_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    ways = [FlashInfer(FLASHINFER), FlashAttention(FLASH, 3)]
    verdicts = choose(SHAPE, CPU, ways, Timer(0.5))
    assert [verdict.winner for verdict in verdicts.values()] == ["flash-attention"] * 2
    assert chosen.decode is chosen.prefill is ways[1]
    assert verdicts["decode"].milliseconds.keys() == {OWN, "flashinfer", "flash-attention"}
    assert choose(SHAPE, CPU, ways, Timer(2.0))["decode"].winner == OWN and chosen.decode is None


def test_what_cannot_serve_or_errs_is_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)

    def wrong(*args: Any, **how: Any) -> Tensor:
        return flash_attn_with_kvcache(*args, **how) * 2

    liar = FlashAttention(SimpleNamespace(flash_attn_with_kvcache=wrong), 3)
    verdicts = choose(SHAPE._replace(captured=True), CPU, [FlashInfer(FLASHINFER), liar], Timer(0.5))
    assert verdicts["decode"].winner == OWN and "captured" in verdicts["decode"].refused["flashinfer"]
    assert "off by" in verdicts["decode"].refused["flash-attention"]
    assert verdicts["prefill"].winner == "flashinfer"
    narrow = choose(SHAPE._replace(kv_dtype=torch.int8), CPU, [FlashInfer(FLASHINFER)], Timer(0.5))
    assert narrow["decode"].winner == narrow["prefill"].winner == OWN
    assert "256" in FlashAttention(FLASH, 2).refuses_decode(SHAPE)


def test_a_verdict_is_kept_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    monkeypatch.setitem(sys.modules, "flashinfer", FLASHINFER)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    monkeypatch.setitem(sys.modules, "flash_attn", FLASH)
    assert [way.name for way in installed()] == ["flashinfer", "flash-attention"]
    measured = choose(SHAPE, CPU, time_of=Timer(0.5))
    assert attention_choice.cache_file().exists()
    chosen.decode = None
    assert choose(SHAPE, CPU, time_of=Timer(2.0)) == measured and chosen.decode is not None
    attention_choice.cache_file().write_text("{")
    assert choose(SHAPE, CPU, time_of=Timer(2.0))["decode"].winner == OWN


def test_where_nothing_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flashinfer", "flash_attn_interface", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    verdicts = choose(SHAPE, CPU)
    assert verdicts["decode"] == (OWN, {}, {}) and not attention_choice.cache_file().exists()
    assert attention_choice.told(verdicts["decode"]) == "no other way is installed"
