"""Experts on CPU against the definition, and the same bits in any company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.kernels.fused_moe import fused_moe, fused_moe_reference, pack_experts


@pytest.mark.parametrize("in_c", [True, False])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.sampled_from([(1, 1), (4, 2), (9, 4)]), st.booleans(), st.integers(0, 2**31))
def test_each_token_gets_its_experts_whoever_else_is_there(
    monkeypatch: pytest.MonkeyPatch, in_c: bool, tokens: int, counts: tuple[int, int], crowded: bool, seed: int
) -> None:
    if not in_c:
        monkeypatch.setattr("headway.kernels.fused_moe.native_type", lambda *_: False)
    torch.manual_seed(seed)
    (count, k), hidden, width = counts, 64, 48
    x, shares = torch.randn(tokens, hidden), torch.rand(tokens, k)
    gate_up, down = torch.randn(count, 2 * width, hidden), torch.randn(count, hidden, width)
    chosen = torch.rand(tokens, count).topk(k, -1).indices
    if crowded:
        chosen = chosen[:1].expand(tokens, k).contiguous()
    experts = pack_experts(gate_up, down)
    found = fused_moe(x, experts, chosen, shares)
    torch.testing.assert_close(found, fused_moe_reference(x, gate_up, down, chosen, shares), rtol=1e-3, atol=1e-2)
    for token in range(tokens):
        alone = slice(token, token + 1)
        assert torch.equal(fused_moe(x[alone], experts, chosen[alone], shares[alone]), found[alone])
