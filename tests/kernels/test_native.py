"""The operations in C against torch's, for every instruction set that this processor has."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.kernels.kv_pages import KvPages
from headway.kernels.native import AVAILABLE, native
from headway.kernels.paged_attention import (
    AttentionBatch,
    NativeRows,
    attention_reference,
    paged_attention,
    plan_attention,
    plan_decode,
)
from headway.kernels.rms_norm import add_rms_norm, rms_norm_reference
from headway.kernels.rope_kv_write import HeadNorms, rope_kv_write, rope_kv_write_reference
from headway.kernels.rotary import rotary_tables
from headway.kernels.swiglu import swiglu

CPU = torch.device("cpu")
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="not built, or turned off")


def test_an_instruction_set_that_is_none() -> None:
    with pytest.raises(ValueError, match="no instruction set mmx"):
        native.use("mmx")


@pytest.mark.parametrize("size", [3, 16, 41, 256])
def test_elementwise(instructions: str, size: int) -> None:
    x, residual, weight = torch.randn(5, size) * 30, torch.randn(5, size), torch.rand(size)
    total = residual + x
    torch.testing.assert_close(add_rms_norm(x, residual, weight, 1e-5), rms_norm_reference(total, weight, 1e-5))
    assert torch.equal(residual, total)
    gate, up = torch.randn(4, size) * 40, torch.randn(4, size)
    gate[0, 0], gate[1, 0], gate[2, 0], gate[3, 0] = 200, -200, torch.nan, -3e38
    found = swiglu(torch.cat((gate, up), -1))
    torch.testing.assert_close(found, gate * torch.sigmoid(gate) * up, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dims", [6, 64])
def test_rope_kv_write(instructions: str, dims: int, normed: bool) -> None:
    tables = rotary_tables(torch.rand(dims // 2), 50, torch.float32)
    qkv, positions, slots = torch.randn(3, 8, 64), torch.tensor([0, 7, 49]), torch.tensor([2, 31, 5])
    written, expected = (KvPages(torch.zeros(4, 8, 2, 64), torch.zeros(4, 8, 2, 64)) for _ in range(2))
    norms = HeadNorms(torch.rand(64), torch.rand(64), 1e-6) if normed else None
    query = rope_kv_write(qkv, *tables, positions, slots, written, 4, norms)
    torch.testing.assert_close(query, rope_kv_write_reference(qkv, *tables, positions, slots, expected, 4, norms))
    torch.testing.assert_close(written, expected)


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, count: int) -> torch.Tensor:
    """The last `count` of the queries, where all tokens stand in pages one after the other."""
    pages = torch.arange(keys.shape[0], dtype=torch.int32).unsqueeze(0)
    batch = plan_attention([count], [len(query)], pages, 16, device=CPU, dtype=query.dtype)
    return paged_attention(query[len(query) - count :], KvPages(keys, values), batch, 0.3)


def test_attention(instructions: str) -> None:
    query, keys, values = torch.randn(90, 6, 32), torch.randn(6, 16, 2, 32), torch.randn(6, 16, 2, 32)
    expected = attention_reference(query, keys.view(96, 2, 32)[:90], values.view(96, 2, 32)[:90], 0.3).float()
    together = attend(query, keys, values, 90)
    torch.testing.assert_close(together, expected, atol=2e-6, rtol=2e-6)
    for count in (1, 2, 7, 40):  # the chunk that a query stands in does not change its bits
        assert torch.equal(attend(query, keys, values, count), together[-count:])


@TYPES
def test_a_key_that_is_not_a_number_shows(products: str, dtype: torch.dtype) -> None:
    query, (keys, values) = torch.randn(20, 2, 32).to(dtype), torch.randn(2, 2, 16, 1, 32).to(dtype).unbind()
    keys[0, 9] = torch.nan
    assert attend(query, keys, values, 1).isnan().all()


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int, int, int, int, int | None]:
    """(context, queries) of each row, page size, head_dim, KV heads, heads that share one, window."""
    contexts = draw(st.lists(st.integers(1, 70), max_size=4))
    rows = [(context, draw(st.integers(0, context))) for context in contexts]
    shared = draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 17, 33]))
    window = draw(st.none() | st.integers(1, 80))
    page_size, head_dim = draw(st.sampled_from([1, 3, 8, 16, 64])), 16 * draw(st.sampled_from([1, 3, 4, 5, 16]))
    return rows, page_size, head_dim, draw(st.integers(1, 3)), shared, window


@TYPES
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=batches(), seed=st.integers(0, 2**31))
def test_any_batch(
    products: str,
    dtype: torch.dtype,
    batch: tuple[list[tuple[int, int]], int, int, int, int, int | None],
    seed: int,
) -> None:
    """Against the definition; all that no query of a row sees is poison: other slots, tokens before the first window,
    and the table's entries past the context."""
    described, page_size, head_dim, kv_heads, shared, window = batch
    random = torch.Generator().manual_seed(seed)
    pages = [-(-context // page_size) for context, _ in described]
    order = torch.randperm(sum(pages) + 1, generator=random, dtype=torch.int32)
    tables = torch.full((len(described), max(pages, default=0) + 1), 2**31 - 1, dtype=torch.int32)
    keys, values = torch.full((2, sum(pages) + 1, page_size, kv_heads, head_dim), torch.nan, dtype=dtype).unbind()
    query = torch.randn(sum(count for _, count in described), kv_heads * shared, head_dim, generator=random).to(dtype)
    expected, token = [], 0
    for row, (context, count) in enumerate(described):
        tables[row, : pages[row]], order = order[: pages[row]], order[pages[row] :]
        key, value = torch.randn(2, context, kv_heads, head_dim, generator=random).to(dtype).unbind()
        asked, token = query[token : token + count], token + count
        expected.append(attention_reference(asked, key, value, 0.2, window))
        seen = range(max(0, context - count + 1 - (window or context)), context)
        for at in seen:
            page, offset = int(tables[row, at // page_size]), at % page_size
            keys[page, offset], values[page, offset] = key[at], value[at]
    counts, lengths = [count for _, count in described], [context for context, _ in described]
    plan = plan_attention(counts, lengths, tables, page_size, device=CPU, dtype=dtype, window=window)
    found = paged_attention(query, KvPages(keys, values), plan, 0.2)
    wanted = torch.cat(expected) if expected else found.double()
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)


def test_a_cache_of_more_than_two_to_the_31_elements(instructions: str, tmp_path: Path) -> None:
    """In a file with holes: only what is touched takes room."""
    pages, page_size, kv_heads, head_dim = 2**20 + 1, 16, 2, 64
    size = pages * page_size * kv_heads * head_dim
    cache = torch.from_file(str(tmp_path / "cache"), shared=True, size=size).view(pages, page_size, kv_heads, head_dim)
    cos, sin = torch.ones(17, 64), torch.zeros(17, 64)
    qkv, slots = torch.randn(1, 6, 64), torch.tensor([pages * page_size - 1])
    asked = rope_kv_write(qkv, cos, sin, torch.tensor([15]), slots, KvPages(cache, cache), 2)
    assert torch.equal(cache[-1, -1], qkv[0, 4:])
    cache[-1, :15] = torch.randn(15, 2, 64)
    table = torch.tensor([[pages - 1]], dtype=torch.int32)
    plan = plan_attention([1], [16], table, page_size, device=CPU, dtype=torch.float32)
    found = paged_attention(asked, KvPages(cache, cache), plan, 0.1)
    torch.testing.assert_close(found, attention_reference(asked, cache[-1], cache[-1], 0.1).float())


TWICE_ROUNDED = {"rtol": 2**-7, "atol": 2**-5}  # the references of some operations round in between


@pytest.mark.parametrize("size", [3, 41, 256])
def test_elementwise_in_bfloat16(instructions: str, size: int) -> None:
    """Against float32 of the same numbers: what comes out is rounded once."""
    x, residual, weight = (torch.randn(5, size) * 30).bfloat16(), torch.randn(5, size).bfloat16(), torch.rand(size)
    total = residual + x
    expected = rms_norm_reference(total.float(), weight, 1e-5)
    torch.testing.assert_close(add_rms_norm(x, residual, weight, 1e-5), expected.bfloat16(), rtol=2**-7, atol=0)
    assert torch.equal(residual, total)
    gate_up = (torch.randn(5, 2 * size) * 9).bfloat16()
    gate_up[0, 0], gate_up[1, 0], gate_up[2, 0], gate_up[3, 0] = 200, -200, torch.nan, torch.inf
    wide = swiglu(gate_up.float())
    torch.testing.assert_close(swiglu(gate_up), wide.bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dims", [6, 64])
def test_rope_kv_write_in_bfloat16(instructions: str, dims: int, normed: bool) -> None:
    tables = rotary_tables(torch.rand(dims // 2), 50, torch.float32)
    qkv, positions, slots = torch.randn(3, 8, 64).bfloat16(), torch.tensor([0, 7, 49]), torch.tensor([2, 31, 5])
    written, expected = (KvPages(*torch.zeros(2, 4, 8, 2, 64).bfloat16().unbind()) for _ in range(2))
    norms = HeadNorms(torch.rand(64), torch.rand(64), 1e-6) if normed else None
    query = rope_kv_write(qkv, *tables, positions, slots, written, 4, norms)
    reference = rope_kv_write_reference(qkv, *tables, positions, slots, expected, 4, norms)
    assert query.dtype == reference.dtype == torch.bfloat16
    torch.testing.assert_close(query, reference, **TWICE_ROUNDED)
    torch.testing.assert_close(written.keys, expected.keys, **TWICE_ROUNDED)
    assert torch.equal(written.values, expected.values)


@pytest.mark.parametrize(("shared", "size"), [(1, 64), (2, 96), (3, 32), (7, 128), (1, 48), (17, 64)])
def test_attention_in_bfloat16(products: str, shared: int, size: int) -> None:
    query = torch.randn(90, 2 * shared, size).bfloat16()
    keys, values = (torch.randn(6, 16, 2, size).bfloat16() for _ in range(2))
    expected = attention_reference(query, keys.view(96, 2, size)[:90], values.view(96, 2, size)[:90], 0.3)
    together = attend(query, keys, values, 90)
    assert together.dtype == torch.bfloat16
    torch.testing.assert_close(together.double(), expected, rtol=2**-8, atol=2**-8)  # weights may be rounded, too
    for count in (1, 2, 3, 7, 40):
        assert torch.equal(attend(query, keys, values, count), together[-count:])
    # Enough numbers for a sum in another order to show, rounded as they are: each token as a step of its own.
    many, (keys, values) = torch.randn(512, 2 * shared, size).bfloat16(), torch.randn(2, 32, 16, 2, size).bfloat16()
    tables = torch.arange(32, dtype=torch.int32).expand(512, 32)
    steps = plan_attention([1] * 512, range(1, 513), tables, 16, device=CPU, dtype=torch.bfloat16)
    assert torch.equal(paged_attention(many, KvPages(keys, values), steps, 0.3), attend(many, keys, values, 512))


@TYPES
def test_what_lies_outside_is_an_error_and_no_wild_read(products: str, dtype: torch.dtype) -> None:
    query, (keys, values) = torch.randn(20, 2, 32).to(dtype), torch.randn(2, 2, 16, 1, 32).to(dtype).unbind()

    def plan(table: list[int], count: int = 1, window: int | None = None) -> AttentionBatch:
        tables = torch.tensor([table], dtype=torch.int32)
        return plan_attention([count], [20], tables, 16, device=CPU, dtype=dtype, window=window)

    for table in ([0, 2], [-1, 0], [2**31 - 1, 0]):
        with pytest.raises(IndexError, match="not in the cache"):
            paged_attention(query[:1], KvPages(keys, values), plan(table), 0.3)
    assert paged_attention(query[:1], KvPages(keys, values), plan([7, 0], window=4), 0.3).isfinite().all()
    with pytest.raises(AssertionError, match="planned for this batch"):
        paged_attention(query[:1], KvPages(keys, values), plan([0, 1], count=20), 0.3)
    with pytest.raises(AssertionError):
        add_rms_norm(query[0], query[1], torch.rand(17), 1e-6)
    tables = torch.zeros(1, 2, dtype=torch.int32)
    for length in (-1, 0, 33, 2**31 - 1):
        decode = plan_decode(tables, torch.tensor([length], dtype=torch.int32), 16, longest=length, dtype=dtype)
        with pytest.raises(
            IndexError, match=f"row 0: 1 queries from token 0 of 1, a context of {length} in 2 pages of 16"
        ):
            paged_attention(query[:1], KvPages(keys, values), decode, 0.3)
    for described in ([-1, 1, 20], [1, 1, 20], [0, -1, 20], [0, 2, 20], [2**31 - 1, 2**31 - 1, 2**31 - 1]):
        rows = NativeRows(tables, torch.tensor([described], dtype=torch.int32), 1, 16, 0)
        with pytest.raises(IndexError, match=f"row 0: {described[1]} queries from token {described[0]} of 1"):
            paged_attention(query[:1], KvPages(keys, values), AttentionBatch(native=rows), 0.3)
    wide = torch.tensor([[0, 7], [1, 7]], dtype=torch.int32)[:, :1]  # every other page of the memory is none
    decode = plan_decode(wide, torch.full((2,), 16, dtype=torch.int32), 16, longest=16, dtype=dtype)
    assert paged_attention(query[:2], KvPages(keys, values), decode, 0.3).isfinite().all()


def test_places_outside_are_errors(instructions: str) -> None:
    keys, values = torch.randn(2, 2, 16, 1, 16).unbind()
    tables, pages = rotary_tables(torch.rand(8), 50, torch.float32), KvPages(keys, values)
    for position, slot in ((50, 0), (-1, 0), (0, 32), (0, -1)):
        with pytest.raises(IndexError, match=f"position {position} of 50, slot {slot} of 32"):
            rope_kv_write(torch.randn(1, 4, 16), *tables, torch.tensor([position]), torch.tensor([slot]), pages, 2)


def test_results_are_float32_whatever_torchs_default_is(instructions: str) -> None:
    query, (keys, values) = torch.randn(90, 2, 16), torch.randn(2, 6, 16, 1, 16).unbind()
    cos, sin = rotary_tables(torch.rand(8), 90, torch.float32)
    before, places = torch.get_default_dtype(), torch.arange(90)
    torch.set_default_dtype(torch.float64)
    try:
        turned = rope_kv_write(torch.randn(90, 4, 16).float(), cos, sin, places, places, KvPages(keys, values), 2)
        found = attend(query, keys, values, 90), turned, swiglu(query.view(90, 32))
    finally:
        torch.set_default_dtype(before)
    assert [x.dtype for x in found] == [torch.float32] * 3


@TYPES
def test_threads_do_not_share_scratch_memory(products: str, dtype: torch.dtype) -> None:
    """Contexts of other lengths in each thread, as of several engines in one process."""
    sizes = (500, 1100, 2300)
    inputs = [(torch.randn(n, 2, 32).to(dtype), *torch.randn(2, -(-n // 16), 16, 1, 32).to(dtype)) for n in sizes]
    expected = [attend(*given, 9) for given in inputs]
    found: list[list[torch.Tensor]] = [[] for _ in inputs]
    workers = [
        threading.Thread(target=lambda i=i: found[i].extend(attend(*inputs[i], 9) for _ in range(60)))
        for i in range(len(inputs))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for answers, answer in zip(found, expected, strict=True):
        assert len(answers) == 60 and all(torch.equal(answer, other) for other in answers)
