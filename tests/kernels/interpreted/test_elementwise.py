"""Norms, activation, rotary embedding with the cache's write, embedding and page copies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.geglu import geglu
from headway.kernels.kv_pages import KvPages
from headway.kernels.page_copy import PageTensors, gather_pages, scatter_pages
from headway.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_reference
from headway.kernels.rope_kv_write import HeadNorms, rope_kv_write, rope_kv_write_reference
from headway.kernels.rotary import rotary_tables
from headway.kernels.swiglu import swiglu
from headway.kernels.vocab_embedding import vocab_embedding

from .fp8 import same_fp8

FEW = settings(max_examples=10, deadline=None)


@FEW
@given(st.integers(0, 5), st.sampled_from([1, 48, 64, 100]), st.booleans())
def test_rms_norm(tokens: int, hidden: int, adding: bool) -> None:
    x, residual, weight = torch.randn(tokens, hidden) * 9, torch.randn(tokens, hidden), torch.rand(hidden)
    if adding:
        total = x + residual
        found = add_rms_norm(x, residual, weight, 1e-5)
        assert torch.equal(residual, total)
    else:
        total, found = x, rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(found, rms_norm_reference(total, weight, 1e-5))


@pytest.mark.parametrize("wide", [False, True])
def test_a_sum_is_rounded_before_it_is_normed(wide: bool) -> None:
    """As the layers that read the residual stream see it; with weights in float32, too."""
    torch.manual_seed(0)
    x, residual = torch.randn(3, 64).half(), (torch.randn(3, 64) * 2000).half()
    weight = torch.rand(64) + 1.0 if wide else (torch.rand(64) + 1.0).half()
    exact = (residual + x).float()
    found = add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(residual.float(), exact)
    normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-5) * weight.float()
    assert torch.equal(found, normed.half()) or (found.is_cuda and (found == normed.half()).float().mean() > 0.95)


@FEW
@given(st.integers(0, 4), st.sampled_from([1, 1000, 1025, 2100]))
def test_swiglu_and_geglu(tokens: int, width: int) -> None:
    gate, up = torch.randn(tokens, width), torch.randn(tokens, width)
    torch.testing.assert_close(swiglu(torch.cat((gate, up), -1)), gate * torch.sigmoid(gate) * up)
    gelu = torch.nn.functional.gelu(4 * gate, approximate="tanh")
    torch.testing.assert_close(geglu(torch.cat((4 * gate, up), -1)), gelu * up)


@FEW
@given(
    st.integers(0, 6),
    st.sampled_from([(2, 1), (4, 4), (3, 1)]),
    st.sampled_from([(32, 32), (96, 48), (64, 64)]),
    st.sampled_from([torch.float32, torch.int8, torch.float8_e4m3fn]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_rope_kv_write(
    tokens: int, counts: tuple[int, int], dims: tuple[int, int], kind: torch.dtype, normed: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    (heads, kv_heads), (dim, rotary) = counts, dims
    cos, sin = rotary_tables(torch.rand(rotary // 2), 50, torch.float32)
    qkv = torch.randn(tokens, heads + 2 * kv_heads, dim) * 5
    positions, slots = torch.randint(0, 50, (tokens,)), torch.randperm(64)[:tokens]

    def pages() -> KvPages:
        caches = [torch.full((4, 16, kv_heads, dim), 3.0).to(kind) for _ in range(2)]
        scales = [None if kind == torch.float32 else torch.full((4, 16, kv_heads), 2.0) for _ in range(2)]
        return KvPages(*caches, *scales)

    found, wanted = pages(), pages()
    norms = HeadNorms(torch.rand(dim), torch.rand(dim), 1e-6) if normed else None
    query = rope_kv_write(qkv, cos, sin, positions, slots, found, heads, norms)
    torch.testing.assert_close(query, rope_kv_write_reference(qkv, cos, sin, positions, slots, wanted, heads, norms))
    for part, other in zip(found, wanted, strict=True):
        if part is None:
            assert other is None
        elif part.dtype == torch.int8:
            assert (part.int() - other.int()).abs().max() <= 1  # ties are rounded either way
        elif part.dtype == torch.float8_e4m3fn:
            assert same_fp8(part, other)
        else:
            torch.testing.assert_close(part, other)


@FEW
@given(st.integers(0, 6), st.sampled_from([7, 1030]), st.integers(0, 30))
def test_vocab_embedding(tokens: int, hidden: int, first: int) -> None:
    table, ids = torch.randn(20, hidden), torch.randint(0, 50, (tokens,))
    found = vocab_embedding(ids, table, first)
    for token_id, row in zip(ids.tolist(), found, strict=True):
        held = first <= token_id < first + 20
        assert torch.equal(row, table[token_id - first] if held else torch.zeros(hidden))


def test_pages_go_out_and_come_back() -> None:
    torch.manual_seed(0)
    tensors = [
        torch.randn(6, 16, 2, 40),
        torch.randint(-128, 128, (6, 16, 2, 40)).to(torch.int8),
        torch.randn(6, 16, 2),
    ]
    before = [tensor.clone() for tensor in tensors]
    group, pages = PageTensors(tensors), torch.tensor([4, 1, 5])
    copies = gather_pages(group, pages)
    whole, bytes_at = 16 * 2 * 40, 16 * 2 * 40 // 4
    assert torch.equal(copies[:, :whole].view(torch.float32).view(3, 16, 2, 40), before[0][pages])
    assert torch.equal(copies[:, whole : whole + bytes_at].view(torch.int8).view(3, 16, 2, 40), before[1][pages])
    for tensor in tensors:
        tensor[pages] = 77
    scatter_pages(group, pages, copies)
    assert all(torch.equal(now, then) for now, then in zip(tensors, before, strict=True))
    assert gather_pages(group, pages[:0]).shape == (0, whole + bytes_at + 16 * 2)


def test_pages_that_are_no_words_are_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        PageTensors([torch.zeros(4, 2).T])
    with pytest.raises(ValueError, match="4-byte words, got 3"):
        PageTensors([torch.zeros(2, 3, dtype=torch.uint8)])
