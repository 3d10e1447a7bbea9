"""What a row gives does not depend on the rows beside it, bit for bit: products, and attention by tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.attention_prefill import tile_queries
from headway.kernels.kv_pages import KvPages
from headway.kernels.linear_invariant import FEW_ROWS, input_parts, linear_invariant, linear_invariant_reference
from headway.kernels.paged_attention import paged_attention, plan_attention


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.float16]),
    st.integers(1, 70),
    st.sampled_from([1, 64, 100]),
    st.sampled_from([40, 192, 600]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_linear(dtype: torch.dtype, rows: int, outputs: int, inputs: int, biased: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    bias = torch.randn(outputs).to(dtype) if biased else None
    wanted = linear_invariant_reference(x, weight, bias)
    torch.testing.assert_close(linear_invariant(x, weight, bias), wanted, rtol=2e-3, atol=2e-3)


def test_a_row_alone_and_among_many() -> None:
    """Few rows leave the parts of a sum to programs, many do not."""
    torch.manual_seed(0)
    inputs, outputs = 600, 64
    assert input_parts(outputs, inputs) == 2
    x, weight, bias = torch.randn(FEW_ROWS + 6, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    together = linear_invariant(x, weight, bias)
    for rows in ([0], [69], [5, 66, 1], list(range(FEW_ROWS))):
        assert torch.equal(linear_invariant(x[rows], weight, bias), together[rows])


@pytest.mark.parametrize("window", [None, 9])
def test_attention_of_a_chunk_is_that_of_its_tokens(window: int | None) -> None:
    """With `invariant`, one query goes the way that a chunk goes."""
    torch.manual_seed(0)
    page, heads, kv_heads, dim, length = 4, 4, 2, 16, 70
    pages = KvPages(torch.randn(40, page, kv_heads, dim), torch.randn(40, page, kv_heads, dim))
    tables = torch.randperm(40, device="cpu")[:36].to(torch.int32).view(2, 18)
    query = torch.randn(length + 1, heads, dim)
    common = {"device": query.device, "dtype": torch.float32, "window": window, "invariant": True}
    tile = tile_queries(heads, kv_heads, dim)

    def attend(query: torch.Tensor, counts: list[int], lengths: list[int], rows: torch.Tensor) -> torch.Tensor:
        plan = plan_attention(counts, lengths, rows, page, queries_a_tile=tile, **common)
        return paged_attention(query, pages, plan, 0.25, 0.0)

    whole = attend(query[:length], [length], [length], tables[:1])
    for first, last in ((0, 1), (69, 70), (3, 40), (68, 70)):
        assert torch.equal(attend(query[first:last], [last - first], [last], tables[:1]), whole[first:last])
    beside = attend(query[[length, 41]], [1, 1], [33, 42], tables.flip(0))
    assert torch.equal(beside[1], whole[41])
