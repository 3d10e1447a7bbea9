"""Paged attention against the definition, over random mixes of rows, with poison wherever no row has written."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.kv_pages import KvPages
from headway.kernels.kv_write import kv_write
from headway.kernels.paged_attention import attention_reference, paged_attention, plan_attention

CPU = torch.device("cpu")
ROW = st.tuples(st.integers(1, 70), st.integers(1, 40)).map(lambda pair: (pair[0], min(pair)))  # (context, queries)


class Case:
    """Rows of (context, queries) in a cache of which every slot that holds no token of theirs is NaN."""

    def __init__(
        self,
        rows: list[tuple[int, int]],
        page_size: int,
        kv_heads: int,
        shared: int,
        head_dim: int,
        device: torch.device,
        window: int | None = None,
        softcap: float = 0.0,
    ) -> None:
        generator = torch.Generator().manual_seed(len(rows) * 1000 + rows[0][0])
        self.rows, self.page_size, self.device = rows, page_size, device
        self.window, self.softcap = window, softcap
        widths = [-(-context // page_size) for context, _ in rows]
        total = sum(widths) + 3
        order = torch.randperm(total, generator=generator).to(torch.int32)
        self.tables = torch.full((len(rows), max(widths)), int(order[-1]), dtype=torch.int32)
        caches = [torch.full((total, page_size, kv_heads, head_dim), torch.nan, device=device) for _ in range(2)]
        self.pages = KvPages(*caches)
        self.keys, self.values, self.queries = [], [], []
        taken = 0
        for row, ((context, queries), width) in enumerate(zip(rows, widths, strict=True)):
            self.tables[row, :width] = order[taken : taken + width]
            taken += width
            key, value = (torch.randn(context, kv_heads, head_dim, generator=generator) for _ in range(2))
            positions = torch.arange(context)
            slots = self.tables[row, positions // page_size].long() * page_size + positions % page_size
            kv_write(key.to(device), value.to(device), self.pages, slots.to(device))
            if window is not None:  # nobody sees what lies before the first query's window
                hidden = slots[: max(0, context - queries + 1 - window)].to(device)
                for cache in caches:
                    cache.view(-1, kv_heads, head_dim)[hidden] = torch.nan
            self.keys.append(key)
            self.values.append(value)
            self.queries.append(torch.randn(queries, kv_heads * shared, head_dim, generator=generator))

    def check(self, tolerance: float = 2e-5) -> None:
        contexts, counts = [row[0] for row in self.rows], [row[1] for row in self.rows]
        batch = plan_attention(
            counts,
            contexts,
            self.tables,
            self.page_size,
            device=self.device,
            dtype=self.pages.keys.dtype,
            window=self.window,
        )
        scale = 1 / math.sqrt(self.pages.keys.shape[-1])
        query = torch.cat(self.queries).to(self.device)
        found = paged_attention(query, self.pages, batch, scale, self.softcap).cpu().split(counts)
        for part, query, key, value in zip(found, self.queries, self.keys, self.values, strict=True):
            expected = attention_reference(query, key, value, scale, self.window, self.softcap)
            torch.testing.assert_close(part.double(), expected, atol=tolerance, rtol=tolerance)


def without_c(patch: pytest.MonkeyPatch) -> None:
    """The torch reference, where an operation in C would do it."""
    patch.setattr("headway.kernels.paged_attention.native_type", lambda device, dtype: False)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=12),
    page_size=st.sampled_from([1, 4, 16, 32]),
    heads=st.sampled_from([(1, 1), (2, 2), (3, 1), (1, 7), (1, 20)]),
    head_dim=st.sampled_from([8, 64, 80]),
    window=st.none() | st.integers(1, 72),
    softcap=st.sampled_from([0.0, 0.0, 0.0, 0.7, 30.0]),
    in_c=st.booleans(),
)
def test_any_mix_of_rows(
    in_c: bool,
    rows: list[tuple[int, int]],
    page_size: int,
    heads: tuple[int, int],
    head_dim: int,
    window: int | None,
    softcap: float,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not in_c:
            without_c(patch)
        Case(rows, page_size, *heads, head_dim, CPU, window, softcap).check()


def test_capped_chunk_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.kernels.attention_groups.CAPPED_SCORES", 1000)
    for window in (None, 9):
        Case([(70, 40), (31, 31), (5, 1)], 16, 2, 3, 8, CPU, window, 2.0).check()


@pytest.mark.parametrize("in_c", [True, False])
@pytest.mark.parametrize("context", [15, 16, 17, 511, 512, 513, 1100])
def test_long_decode_rows_beside_short_ones(context: int, in_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_c:
        without_c(monkeypatch)
    Case([(1, 1), (context, 1), (context - 1, 1), (context, min(context, 33))], 16, 2, 2, 64, CPU).check()


def test_reference_agrees_with_torch() -> None:
    """The definition that the others are held to is itself torch's causal attention."""
    query, key, value = (torch.randn(9, heads, 16, dtype=torch.float64) for heads in (4, 2, 2))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1),
        key.transpose(0, 1).repeat_interleave(2, 0),
        value.transpose(0, 1).repeat_interleave(2, 0),
        is_causal=True,
    )
    found = attention_reference(query, key, value, 1 / 4)
    torch.testing.assert_close(found, expected.transpose(0, 1).reshape(9, -1))


@pytest.mark.parametrize("in_c", [True, False])
@pytest.mark.parametrize("head_dim", [32, 128])
@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("window", [None, 90])
def test_a_rows_bits_do_not_depend_on_its_neighbours(
    window: int | None, softcap: float, head_dim: int, in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_c:
        without_c(monkeypatch)
    lengths = [5, 16, 50, 64, 100, 250, 251, 600]  # a full row is among those that share its padding
    generator = torch.Generator().manual_seed(3)
    caches = [torch.randn(200, 16, 2, head_dim, generator=generator) for _ in range(2)]
    tables = torch.randperm(200, generator=generator)[: 8 * 25].view(8, 25).to(torch.int32).repeat(1, 2)[:, :38]
    query = torch.randn(8, 4, head_dim, generator=generator)

    def attend(rows: list[int]) -> torch.Tensor:
        batch = plan_attention(
            [1] * len(rows),
            [lengths[row] for row in rows],
            tables[rows],
            16,
            device=CPU,
            dtype=torch.float32,
            window=window,
        )
        return paged_attention(query[rows], KvPages(*caches), batch, 0.2, softcap)

    together = attend(list(range(8)))
    for row in range(8):
        assert torch.equal(attend([row])[0], together[row])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_any_mix_of_rows_on_cuda() -> None:
    rows = [(1, 1), (17, 1), (300, 1), (64, 1), (33, 33), (70, 5)]
    Case(rows, 16, 2, 4, 64, torch.device("cuda")).check(tolerance=1e-3)


def test_contexts_beyond_their_table_are_refused() -> None:
    table, what = torch.zeros((1, 2), dtype=torch.int32), {"device": torch.device("cpu"), "dtype": torch.float32}
    with pytest.raises(ValueError, match="33 tokens in a block table of 2 pages of 16"):
        plan_attention([1], [33], table, 16, **what)
    with pytest.raises(ValueError, match="queries have to be among"):
        plan_attention([3], [2], table, 16, **what)
    with pytest.raises(ValueError, match="2 query counts, 2 contexts and 1 block tables"):
        plan_attention([1, 1], [2, 2], table, 16, **what)
