"""Quantized linear layers against float64, and the two checkpoint layouts of 4-bit weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels import linear_w4a16 as w4
from headway.kernels.linear_w8a8 import linear_w8a8, linear_w8a8_reference, quantize_rows
from headway.kernels.narrow import quantize_by, quantize_heads

from .fp8 import same_fp8

FEW = settings(max_examples=8, deadline=None)


@FEW
@given(
    st.sampled_from([torch.int8, torch.float8_e4m3fn]),
    st.integers(1, 70),
    st.sampled_from([1, 64, 100]),
    st.sampled_from([96, 128, 1100]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_w8a8(kind: torch.dtype, rows: int, outputs: int, inputs: int, biased: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x, bias = torch.randn(rows, inputs) * 3, torch.randn(outputs) if biased else None
    weight, scale = quantize_heads(torch.randn(outputs, inputs), kind)
    static = torch.tensor(0.02) if seed % 2 else None
    found = linear_w8a8(x, weight, scale, bias, static)
    wanted = linear_w8a8_reference(*quantize_rows(x, kind, static), weight, scale, bias, torch.float32)
    # Hopper's matrix units add fp8 products up in fewer bits than float32 has.
    close = {"rtol": 1e-4, "atol": 1e-3} if found.is_cpu or kind == torch.int8 else {"rtol": 1e-2, "atol": 0.5}
    torch.testing.assert_close(found, wanted, **close)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_rows_are_quantized_one_by_one(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 200) * torch.tensor([[1e-3], [1.0], [1e4]])
    x[1] = 0.0
    narrow, scale = quantize_rows(x, kind)
    wanted, scales = quantize_heads(x, kind)
    torch.testing.assert_close(scale, scales)
    if kind == torch.int8:
        assert (narrow.int() - wanted.int()).abs().max() <= 1  # ties are rounded either way
    else:
        assert same_fp8(narrow, wanted)


@FEW
@given(
    st.integers(1, 20),
    st.sampled_from([1, 64, 72]),
    st.sampled_from([(128, 128), (256, 32), (1024, 64), (1024, 256), (1152, 1152)]),
    st.sampled_from([torch.float32, torch.float16]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_w4a16(rows: int, outputs: int, shape: tuple[int, int], dtype: torch.dtype, biased: bool, seed: int) -> None:
    torch.manual_seed(seed)
    inputs, group = shape
    nibbles = torch.randint(0, 16, (outputs, inputs))
    scales, zeros = torch.rand(outputs, inputs // group), torch.randint(0, 17, (outputs, inputs // group)).float()
    weight = w4.pack(nibbles, scales, zeros)
    assert (weight.inputs, weight.group) == (inputs, group)
    dense = (nibbles.view(outputs, -1, group) - zeros.unsqueeze(-1)) * scales.unsqueeze(-1)
    torch.testing.assert_close(w4.unpacked(weight), dense.view(outputs, inputs))
    x, bias = torch.randn(rows, inputs).to(dtype), torch.randn(outputs) if biased else None
    wanted = torch.nn.functional.linear(x.float(), dense.view(outputs, inputs), bias)
    near = {"rtol": 1e-4, "atol": 2e-3} if dtype == torch.float32 else {"rtol": 2e-3, "atol": 0.05 + inputs / 8192}
    torch.testing.assert_close(w4.linear_w4a16(x, weight, bias), wanted.to(dtype), **near)


@pytest.mark.parametrize(
    ("kind", "bits", "first"),
    [
        (torch.bfloat16, w4.BITS_BFLOAT16, w4.WHOLE_BFLOAT16), (torch.float16, w4.BITS_FLOAT16, w4.WHOLE_FLOAT16)
    ],
)  # fmt: skip
def test_four_bits_below_an_exponent_are_whole_numbers(kind: torch.dtype, bits: Any, first: Any) -> None:
    """What the kernel does in half types, of which the interpreter has only float16: exact for each pair there is."""
    nibble, zero = torch.arange(16).unsqueeze(1), torch.arange(17).unsqueeze(0)
    wide = (nibble | bits.value).to(torch.int16).view(kind)
    found = wide - (zero.float() + first.value).to(kind)
    assert found.dtype == kind and torch.equal(found.float(), (nibble - zero).float())


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_a_stored_scale_cuts_off_what_is_larger(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    x, static = torch.randn(3, 200) * torch.tensor([[0.01], [1.0], [1e4]]), torch.tensor(0.01)
    narrow, scale = quantize_rows(x, kind, static)
    assert torch.equal(scale, static.expand(3))
    wanted = quantize_by(x, static, kind)
    if kind == torch.int8:
        assert (narrow.int() - wanted.int()).abs().max() <= 1
    else:
        assert same_fp8(narrow, wanted)


def test_shapes_that_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="multiple of 128, got 96"):
        w4.pack(torch.zeros(2, 96), torch.ones(2, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match="multiple of 16"):
        w4.pack(torch.zeros(2, 128), torch.ones(2, 16), torch.ones(2, 16))
