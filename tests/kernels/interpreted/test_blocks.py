"""fp8 weights in blocks: products and experts against float64 of what the narrow numbers stand for."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headway.kernels.fused_moe import fused_moe, pack_block_experts
from headway.kernels.fused_moe_blocks import BlockExperts
from headway.kernels.linear_blocks import (
    FP8,
    groups_of,
    linear_blocks,
    linear_blocks_reference,
    quantize_groups,
    rounded,
    spread_scales,
)
from headway.kernels.narrow import quantize_heads

from .fp8 import same_fp8

FEW = settings(max_examples=8, deadline=None)


def blocks(*shape: int) -> tuple[Tensor, Tensor]:
    """A weight, and scales of widely different sizes; each is exact in float32."""
    weight = (torch.randn(shape) * 50).clamp(-448, 448).to(FP8)
    return weight, 2.0 ** torch.randint(-9, 0, (*shape[:-1], groups_of(shape[-1])))


@FEW
@given(
    st.sampled_from([0, 1, 3, 17, 70]), st.sampled_from([1, 64, 200]), st.sampled_from([64, 128, 200, 1300]),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_linear(rows: int, outputs: int, inputs: int, biased: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x, bias = torch.randn(rows, inputs) * 10 ** torch.randn(rows, 1), torch.randn(outputs) if biased else None
    weight, scales = blocks(outputs, inputs)
    found = linear_blocks(x, weight, scales, bias)
    wanted = linear_blocks_reference(*quantize_groups(x), weight, scales, bias, torch.float32)
    close = (
        {"rtol": 1e-4, "atol": 1e-3}
        if found.is_cpu
        else {"rtol": 1e-2, "atol": 0.05 * float(wanted.std()) if rows > 1 else 1.0}
    )
    torch.testing.assert_close(found, wanted, **close)


def test_each_group_has_a_scale_of_its_own() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 300) * torch.tensor([[1e-3], [1.0], [1e4]])
    x[1, 128:256] = 0.0
    x[:, 256:] *= 1000
    narrow, scale = quantize_groups(x)
    for first in (0, 128, 256):
        part = slice(first, min(first + 128, 300))
        wanted, scales = quantize_heads(x[:, part], FP8)
        torch.testing.assert_close(scale[:, first // 128], scales)
        assert same_fp8(narrow[:, part], wanted)
    assert (narrow[1, 128:256].float() == 0).all()


@FEW
@given(
    st.sampled_from([0, 1, 2, 17]), st.sampled_from([(1, 1), (4, 2), (9, 3)]), st.sampled_from([(128, 64), (200, 136)]),
    st.integers(0, 2**31),
)  # fmt: skip
def test_experts(tokens: int, counts: tuple[int, int], sizes: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    (experts, k), (hidden, width) = counts, sizes
    both = BlockExperts(*blocks(experts, 2 * width, hidden), *blocks(experts, hidden, width))
    x, shares = torch.randn(tokens, hidden), torch.rand(tokens, k)
    chosen = torch.rand(tokens, experts).topk(k, -1).indices
    found = fused_moe(x, pack_block_experts(both, torch.float32), chosen, shares)
    wanted = torch.zeros(tokens, hidden)
    gate_up, down = spread_scales(*both[:2]), spread_scales(*both[2:])
    for token in range(tokens):
        for expert, share in zip(chosen[token].tolist(), shares[token], strict=True):
            gate, up = (rounded(x[token : token + 1]) @ gate_up[expert].T).chunk(2, -1)
            inner = rounded(torch.nn.functional.silu(gate) * up)
            wanted[token] += share * (inner @ down[expert].T)[0]
    # A sum that differs in its last bit may be rounded to the next of fp8's few numbers.
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=0.02 * float(wanted.abs().max()) if tokens else 0.0)
