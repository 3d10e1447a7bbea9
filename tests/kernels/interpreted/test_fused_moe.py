"""Experts in grouped launches against the definition."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.fused_moe import FEW_ROWS, MANY_ROWS, fused_moe, fused_moe_reference, pack_experts, row_block


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([0, 1, 2, 17, 40, 140]),  # up to more than half a large block for each expert
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
    packed = pack_experts(gate_up, down)
    found = fused_moe(x, packed, chosen, shares)
    wanted = fused_moe_reference(x, gate_up, down, chosen, shares)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-2)
    apart = fused_moe(x, packed, chosen, shares, invariant=True)
    torch.testing.assert_close(apart, wanted, rtol=1e-3, atol=2e-2)


def test_blocks_are_as_large_as_their_experts_have_rows_for() -> None:
    """And of one size where company must not show."""
    assert row_block(8, 128, False) == row_block(64 * 8, 128, False) == FEW_ROWS
    assert row_block(2048 * 8, 128, False) == MANY_ROWS and row_block(2048 * 8, 128, True) == FEW_ROWS
