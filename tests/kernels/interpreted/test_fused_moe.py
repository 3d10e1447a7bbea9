"""Experts in grouped launches against the definition."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.fused_moe import fused_moe, fused_moe_reference, pack_experts


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([0, 1, 2, 17, 40]),
    st.sampled_from([(1, 1), (4, 2), (9, 3)]),
    st.sampled_from([(64, 64), (72, 40)]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_experts(tokens: int, counts: tuple[int, int], sizes: tuple[int, int], crowded: bool, seed: int) -> None:
    torch.manual_seed(seed)
    (experts, k), (hidden, width) = counts, sizes
    x, shares = torch.randn(tokens, hidden), torch.rand(tokens, k)
    gate_up, down = torch.randn(experts, 2 * width, hidden), torch.randn(experts, hidden, width)
    chosen = torch.arange(k).expand(tokens, k).contiguous()  # all tokens at the same few
    if not crowded:
        chosen = torch.rand(tokens, experts).topk(k, -1).indices
    found = fused_moe(x, pack_experts(gate_up, down), chosen, shares)
    wanted = fused_moe_reference(x, gate_up, down, chosen, shares)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-2)
