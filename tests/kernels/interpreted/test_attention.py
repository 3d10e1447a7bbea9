"""Paged attention against its definition, over drawn shapes, with whatever does not belong to a row poisoned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from headway.kernels import attention_decode as decode_module
from headway.kernels import attention_prefill as prefill_module
from headway.kernels.attention_decode import attention_decode, attention_decode_reference
from headway.kernels.attention_prefill import (
    attention_prefill,
    attention_prefill_reference,
    plan_tiles,
    tile_queries,
)
from headway.kernels.kv_pages import KvPages
from headway.kernels.narrow import quantize_heads
from headway.kernels.rope_kv_write import rope_kv_write
from headway.kernels.rotary import rotary_tables

FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def paged(lengths: list[int], page: int, kv_heads: int, dim: int, kind: torch.dtype) -> tuple[KvPages, Tensor]:
    """Pages of rows of these lengths, in no order, and everything else NaN (or the widest, where there is no NaN)."""
    width = max(1, max(-(-length // page) for length in lengths))
    total = len(lengths) * width + 1
    order = torch.randperm(total, dtype=torch.int32)
    tables = torch.full((len(lengths), width), 2**30, dtype=torch.int32)
    wide = [torch.full((total * page, kv_heads, dim), torch.nan) for _ in range(2)]
    taken = 0
    for row, length in enumerate(lengths):
        used = -(-length // page)
        tables[row, :used] = order[taken : taken + used]
        taken += used
        tokens = torch.arange(length)
        slots = tables[row, tokens // page].long() * page + tokens % page
        for cache in wide:
            cache[slots] = torch.randn(length, kv_heads, dim)
    shape = (total, page, kv_heads, dim)
    if kind in (torch.float32, torch.float16, torch.bfloat16):
        return KvPages(*(cache.to(kind).view(shape) for cache in wide)), tables
    poison = torch.where(wide[0].isnan(), 0.0, wide[0]), torch.where(wide[1].isnan(), 0.0, wide[1])
    (keys, key_scales), (values, value_scales) = (quantize_heads(cache, kind) for cache in poison)
    key_scales[wide[0].isnan().any(-1)] = torch.nan
    value_scales[wide[0].isnan().any(-1)] = torch.nan
    return KvPages(
        keys.view(shape), values.view(shape), key_scales.view(shape[:3]), value_scales.view(shape[:3])
    ), tables


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 2e-5, torch.float16: 4e-3}.get(dtype, 2e-2)
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


KINDS = [
    (torch.float32, torch.float32), (torch.float16, torch.float16), (torch.float32, torch.int8),
    (torch.float32, torch.float8_e4m3fn),
]  # fmt: skip
if torch.get_default_device().type == "cuda":  # the interpreter is wrong about bfloat16
    KINDS += [(torch.bfloat16, kind) for kind in (torch.bfloat16, torch.int8, torch.float8_e4m3fn)]

shapes = st.tuples(
    st.sampled_from([16, 32, 64]),  # page size
    st.sampled_from([(1, 1), (4, 2), (3, 1), (8, 1)]),  # heads, KV heads
    st.sampled_from([8, 32, 64, 96, 128, 256]),  # head_dim
    st.sampled_from([0, 1, 20, 64]),  # window
    st.sampled_from([0.0, 5.0]),  # softcap
    st.sampled_from(KINDS),
)


@pytest.mark.parametrize("window", [0, 70])
def test_decode_of_rows_with_more_splits_than_parts(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each row has the bits that it has alone, whatever grid the company asks for."""
    monkeypatch.setattr(decode_module, "SPLIT", 64)
    monkeypatch.setattr(decode_module, "MOST_PARTS", 2)
    torch.manual_seed(3)
    lengths = [300, 0, 64, 129, 1]
    pages, tables = paged(lengths, 16, 2, 32, torch.float32)
    query, at = torch.randn(len(lengths), 4, 32), torch.tensor(lengths, dtype=torch.int32)
    found = attention_decode(query, pages, tables, at, 0.2, longest=1000, window=window)
    close(found, attention_decode_reference(query, pages, tables, at, 0.2, window=window), torch.float32)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone = attention_decode(query[one], pages, tables[one], at[one], 0.2, longest=length, window=window)
        assert torch.equal(alone[0], found[row])


@FEW
@given(shapes, st.lists(st.integers(0, 140), min_size=1, max_size=3), st.integers(0, 2**31))
def test_decode(shape: tuple, lengths: list[int], seed: int) -> None:  # type: ignore[type-arg]
    page, (heads, kv_heads), dim, window, softcap, (dtype, kind) = shape
    torch.manual_seed(seed)
    pages, tables = paged(lengths, page, kv_heads, dim, kind)
    query = torch.randn(len(lengths), heads, dim, dtype=dtype)
    at = torch.tensor(lengths, dtype=torch.int32)
    found = attention_decode(
        query, pages, tables, at, dim**-0.5, longest=max(lengths) + 5, window=window, softcap=softcap
    )
    wanted = attention_decode_reference(query, pages, tables, at, dim**-0.5, window=window, softcap=softcap)
    close(found, wanted, dtype)


@pytest.mark.parametrize("window", [0, 600])
def test_decode_over_several_splits(window: int) -> None:
    torch.manual_seed(1)
    lengths = [1100, 513, 1]
    pages, tables = paged(lengths, 16, 1, 32, torch.float32)
    query = torch.randn(3, 2, 32)
    at = torch.tensor(lengths, dtype=torch.int32)
    found = attention_decode(query, pages, tables, at, 0.2, longest=1100, window=window)
    close(found, attention_decode_reference(query, pages, tables, at, 0.2, window=window), torch.float32)
    alone = attention_decode(query[1:2], pages, tables[1:2], at[1:2], 0.2, longest=513, window=window)
    assert torch.equal(found[1:2], alone)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_pages_beyond_two_billion_elements(kind: torch.dtype) -> None:
    """Written, and read by both kernels; the memory between is never touched."""
    page, dim, length = 64, 256, 3
    last = 2**31 // (page * dim) + 2
    shape = (last + 1, page, 1, dim)
    pages = KvPages(*(torch.empty(shape, dtype=kind) for _ in range(2)), *(torch.empty(shape[:3]) for _ in range(2)))
    tables, lengths = torch.tensor([[last]], dtype=torch.int32), torch.tensor([length], dtype=torch.int32)
    positions = torch.arange(length)
    cos, sin = rotary_tables(torch.rand(dim // 2), length, torch.float32)
    query = rope_kv_write(torch.randn(length, 3, dim), cos, sin, positions, last * page + positions, pages, 1)
    wanted = torch.empty(length, dim)
    tiles = plan_tiles([0], [length], [length], tile_queries(1, 1, dim)).to(query.device)
    attention_prefill_reference(query, pages, tables, tiles, 0.1, wanted)
    assert wanted.abs().max() > 0.1
    found = torch.empty(length, dim)
    attention_prefill(query, pages, tables, tiles, 0.1, found)
    close(found, wanted, torch.float32)
    close(attention_decode(query[-1:], pages, tables, lengths, 0.1, longest=length), wanted[-1:], torch.float32)


@pytest.mark.parametrize("room", [True, False])
@FEW
@given(
    shape=shapes,
    rows=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 70)), min_size=1, max_size=2),
    seed=st.integers(0, 2**31),
)
def test_prefill(
    room: bool,
    shape: tuple,
    rows: list[tuple[int, int]],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[type-arg]
) -> None:
    """As on Hopper, and as on Ampere."""
    if torch.get_default_device().type != "cuda":
        monkeypatch.setattr(prefill_module, "roomy", lambda device: room)
    page, (heads, kv_heads), dim, window, softcap, (dtype, kind) = shape
    torch.manual_seed(seed)
    counts = [count for _, count in rows]
    lengths = [cached + count for cached, count in rows]
    pages, tables = paged(lengths, page, kv_heads, dim, kind)
    query = torch.randn(1 + sum(counts), heads, dim, dtype=dtype)  # row 0 of the batch belongs to nobody here
    firsts = [1, 1 + counts[0]][: len(counts)]
    tiles = plan_tiles(firsts, counts, lengths, tile_queries(heads, kv_heads, dim)).to(query.device)
    assert sum(tile[3] for tile in tiles.tolist()) == sum(counts)
    found, wanted = (torch.full((len(query), heads * dim), 7.0, dtype=dtype) for _ in range(2))
    attention_prefill(query, pages, tables, tiles, dim**-0.5, found, window=window, softcap=softcap)
    attention_prefill_reference(query, pages, tables, tiles, dim**-0.5, wanted, window=window, softcap=softcap)
    assert torch.equal(found[0], torch.full((heads * dim,), 7.0, dtype=dtype)), "it wrote where no tile is"
    close(found, wanted, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("cached", [0, 120, 255, 256, 300])
def test_prefill_after_blocks_that_are_seen_whole(cached: int, dtype: torch.dtype) -> None:
    """Those before, at and after a border of blocks, by the loop without masks and by the other."""
    torch.manual_seed(cached)
    pages, tables = paged([cached + 40], 16, 1, 128, dtype)
    query = torch.randn(40, 2, 128, dtype=dtype)
    tiles = plan_tiles([0], [40], [cached + 40], tile_queries(2, 1, 128)).to(query.device)
    found, wanted = torch.empty(40, 256, dtype=dtype), torch.empty(40, 256, dtype=dtype)
    attention_prefill(query, pages, tables, tiles, 0.1, found)
    attention_prefill_reference(query, pages, tables, tiles, 0.1, wanted)
    close(found, wanted, dtype)


def test_no_part_waits_for_the_one_before_and_none_that_is_not_there_counts() -> None:
    """Weights of parts far apart, parts without tokens whose memory holds anything, and a row without any."""
    torch.manual_seed(5)
    parts, dim = 11, 24
    partial, logs = torch.randn(3, 2, parts, dim), torch.randn(3, 2, parts) * 60
    logs[0, 0, 3], logs[1, :, 2:], logs[2] = -torch.inf, -torch.inf, -torch.inf
    partial[logs == -torch.inf] = torch.nan
    shares = torch.softmax(logs[:2].double() * np.log(2), -1)
    wanted = torch.zeros(3, 2, dim)
    wanted[:2] = (shares.unsqueeze(-1) * partial[:2].nan_to_num().double()).sum(-2).float()
    found = decode_module.merged(partial, logs, torch.float32)
    torch.testing.assert_close(found, wanted.view(3, -1), rtol=1e-5, atol=1e-6)
    more = torch.cat((partial, torch.full((3, 2, 9, dim), torch.nan)), 2)
    none = torch.full((3, 2, 9), -torch.inf)
    assert torch.equal(decode_module.merged(more, torch.cat((logs, none), 2), torch.float32), found)
    logs[0, 1, 4] = torch.nan
    assert decode_module.merged(partial, logs, torch.float32)[0].isnan().tolist() == [False] * dim + [True] * dim
