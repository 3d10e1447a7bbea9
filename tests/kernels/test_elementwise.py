"""The small operations against their definitions."""

from __future__ import annotations

import torch

from headway.kernels.geglu import geglu
from headway.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_reference
from headway.kernels.rotary import rotary_tables, rotate, rotate_reference
from headway.kernels.swiglu import swiglu


def test_rms_norm() -> None:
    x, weight = torch.randn(5, 48) * 30, torch.rand(48)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), rms_norm_reference(x, weight, 1e-5))
    tiny = torch.full((1, 48), 1e-6)  # eps decides here
    torch.testing.assert_close(rms_norm(tiny, weight, 1e-5), rms_norm_reference(tiny, weight, 1e-5))


def test_add_rms_norm_updates_the_residual() -> None:
    x, residual, weight = torch.randn(3, 16), torch.randn(3, 16), torch.rand(16)
    total = x + residual
    normed = add_rms_norm(x, residual, weight, 1e-6)
    assert torch.equal(residual, total)
    torch.testing.assert_close(normed, rms_norm_reference(total, weight, 1e-6))


def test_rotate_turns_a_slice_of_heads() -> None:
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    cos, sin = rotary_tables(frequencies, 50, torch.float32)
    positions = torch.tensor([0, 3, 49])
    x = torch.randn(3, 6, 8)[:, :4]
    found = rotate(x, cos[positions].unsqueeze(1), sin[positions].unsqueeze(1))
    torch.testing.assert_close(found, rotate_reference(x, positions.unsqueeze(1) * frequencies))
    assert torch.equal(found[0], x[0])  # position 0 turns nothing


def test_rotate_leaves_the_rest_of_a_head() -> None:
    frequencies = torch.tensor([1.0, 0.1, 0.01])
    cos, sin = rotary_tables(frequencies, 50, torch.float32, magnitude=1.5)
    positions = torch.tensor([2, 49])
    x = torch.randn(2, 3, 8)
    found = rotate(x, cos[positions].unsqueeze(1), sin[positions].unsqueeze(1))
    expected = rotate_reference(x, positions.unsqueeze(1) * frequencies)
    torch.testing.assert_close(found[..., :6], expected[..., :6] * 1.5)
    assert torch.equal(found[..., 6:], x[..., 6:])


def test_a_wider_weight_is_applied_before_rounding() -> None:
    x, weight = torch.randn(4, 48).bfloat16(), 1 + torch.rand(48) / 100
    assert torch.equal(rms_norm(x, weight, 1e-6), rms_norm_reference(x.float(), weight, 1e-6).bfloat16())
    residual = torch.zeros_like(x)
    assert torch.equal(add_rms_norm(x, residual, weight, 1e-6), rms_norm(x, weight, 1e-6))


def test_geglu() -> None:
    gate, up = torch.randn(4, 10), torch.randn(4, 10)
    curve = 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
    torch.testing.assert_close(geglu(torch.cat((gate, up), -1)), curve * up)


def test_swiglu() -> None:
    gate, up = torch.randn(4, 10), torch.randn(4, 10)
    torch.testing.assert_close(swiglu(torch.cat((gate, up), -1)), gate * torch.sigmoid(gate) * up)
