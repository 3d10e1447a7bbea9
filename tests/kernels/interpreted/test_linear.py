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
ON_DEVICE = torch.get_default_device().type == "cuda"
# The interpreter is wrong about bfloat16, which is what models are served in. On a device tests of one type take that.
HALVES = [torch.float16, torch.bfloat16] if ON_DEVICE else [torch.float16]
HALF = HALVES[-1]


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
    st.integers(0, 20),
    st.sampled_from([1, 64, 72, 130]),
    st.sampled_from([(128, 128), (256, 32), (384, 48), (768, 96), (1024, 64), (1024, 256), (1152, 1152)]),
    st.sampled_from([torch.float32, *HALVES]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_w4a16(rows: int, outputs: int, shape: tuple[int, int], dtype: torch.dtype, biased: bool, seed: int) -> None:
    torch.manual_seed(seed)
    inputs, group = shape
    weight, dense = four_bits(outputs, inputs, group)
    assert (weight.inputs, weight.group) == (inputs, group)
    torch.testing.assert_close(w4.unpacked(weight), dense)
    x, bias = torch.randn(rows, inputs).to(dtype), torch.randn(outputs) if biased else None
    wanted = torch.nn.functional.linear(x.float(), dense, bias)
    near = {"rtol": 1e-4, "atol": 2e-3} if dtype == torch.float32 else near_half(dtype, inputs)
    torch.testing.assert_close(w4.linear_w4a16(x, weight, bias), wanted.to(dtype), **near)


def near_half(dtype: torch.dtype, inputs: int) -> dict[str, Any]:
    """How far rounded results may be apart, and sums of weights that are rounded first, as those of odd groups are."""
    coarse = torch.finfo(dtype).eps / torch.finfo(torch.float16).eps
    return {"rtol": 2e-3 * coarse, "atol": (0.05 + inputs / 8192) * coarse}


def four_bits(outputs: int, inputs: int, group: int) -> tuple[w4.PackedWeight, torch.Tensor]:
    """Any weight of such groups, and what it stands for."""
    nibbles = torch.randint(0, 16, (outputs, inputs))
    shape = (outputs, inputs // group)
    scales, zeros = (2 * torch.rand(shape) - 1).half(), torch.randint(0, 17, shape)
    dense = (nibbles.view(outputs, -1, group) - zeros.unsqueeze(-1)) * scales.float().unsqueeze(-1)
    return w4.pack(nibbles, scales, zeros), dense.view(outputs, inputs)


@pytest.mark.parametrize("group", [32, 128])
def test_parts_of_the_sum_are_added_by_who_comes_last(group: int) -> None:
    """In their order, and with no trace for the next product."""
    torch.manual_seed(0)
    inputs = 4 * w4.PACKED * w4.LEAST_BLOCKS
    assert inputs // w4.PACKED // w4.part_blocks(3, 72, inputs) == 4
    weight, dense = four_bits(72, inputs, group)
    for _ in range(2):
        x = torch.randn(3, inputs).to(HALF)
        wanted = torch.nn.functional.linear(x.float(), dense).to(HALF)
        torch.testing.assert_close(w4.linear_w4a16(x, weight), wanted, **near_half(HALF, inputs))
        assert not weight.counts.any()


@pytest.mark.skipif(not ON_DEVICE, reason="the interpreter runs a kernel's programs one after the other")
def test_whoever_comes_last_gives_the_same_bits() -> None:
    """In whatever order programs end, replayed for some numbers of rows and launched between replays."""
    torch.manual_seed(0)
    weight, _ = four_bits(4096, 4096, 128)
    x = torch.randn(40, 4096).to(HALF)
    wanted = {rows: w4.linear_w4a16(x[:rows], weight) for rows in (1, 40)}
    replays = []
    for rows in wanted:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = w4.linear_w4a16(x[:rows], weight)
        replays.append((rows, graph, out))
    for _ in range(100):
        for rows, graph, out in replays:
            out.zero_()
            graph.replay()
            assert torch.equal(out, wanted[rows])
            assert torch.equal(w4.linear_w4a16(x[:rows], weight), wanted[rows])
    assert not weight.counts.any()


@pytest.mark.parametrize("inputs", [1280, 2048])
def test_a_row_of_4_bit_products_alone_and_among_others(inputs: int) -> None:
    """However many blocks of inputs a program takes at once; up to as many rows as have the sum in parts."""
    torch.manual_seed(0)
    weight, _ = four_bits(72, inputs, 128)
    x = torch.randn(w4.SPLIT_ROWS - 1, inputs).to(HALF)
    together = w4.linear_w4a16(x, weight)
    assert len({w4.pipeline(rows, 2048, half=True) for rows in (1, 17, 33)}) == 3
    for rows in ([0], [62, 3], list(range(17)), list(range(40))):
        assert torch.equal(w4.linear_w4a16(x[rows], weight), together[rows])


def test_parts_are_whole_turns_of_any_number_of_rows() -> None:
    for outputs in (72, 1024, 4096, 28672):
        for blocks in (1, 3, 8, 9, 32, 86, 112):
            for rows in (1, 16, 17, 63, 64, 500):
                part = w4.part_blocks(rows, outputs, w4.PACKED * blocks)
                assert 0 < part <= blocks and (part == blocks or (part % 2 == 0 and part >= w4.LEAST_BLOCKS))
                assert part == w4.part_blocks(1, outputs, w4.PACKED * blocks) or rows >= w4.SPLIT_ROWS


def test_scales_of_half_types_are_kept_as_they_are() -> None:
    nibbles, zeros = torch.full((4, 128), 9), torch.tensor([[0], [8], [15], [16]])
    for kind in (torch.float16, torch.bfloat16):
        scales = torch.tensor([[1 / 3], [-1e-4], [6e-8], [60000.0]]).to(kind)
        assert torch.equal(w4.unpacked(w4.pack(nibbles, scales, zeros))[:, :1], (9 - zeros) * scales.float())
    scales = torch.rand(4, 1)
    torch.testing.assert_close(
        w4.unpacked(w4.pack(nibbles, scales, zeros))[:, :1], (9 - zeros) * scales, rtol=2**-18, atol=0.0
    )


def test_weights_side_by_side() -> None:
    (one, first), (two, second) = four_bits(72, 256, 64), four_bits(130, 256, 64)
    both = w4.side_by_side([one, two])
    assert torch.equal(w4.unpacked(both), torch.cat((first, second))) and len(both.counts) == 2


@pytest.mark.parametrize(
    ("kind", "bits", "below"),
    [
        (torch.bfloat16, w4.BITS_BFLOAT16, w4.BELOW_BFLOAT16), (torch.float16, w4.BITS_FLOAT16, w4.BELOW_FLOAT16)
    ],
)  # fmt: skip
def test_four_bits_below_an_exponent_are_whole_numbers(kind: torch.dtype, bits: Any, below: Any) -> None:
    """What the kernel does in half types, of which the interpreter has only float16: exact for each pair there is."""
    low, high, zero = (torch.arange(count, dtype=torch.int32) for count in (16, 16, 17))
    low, high, zero = torch.meshgrid(low, high, zero, indexing="ij")
    words = (low | high << 16 | 0x7FF07FF0) & w4.FOUR_BITS.value | bits.value
    found = words.view(kind) + (zero * 0x10001 | below.value).view(kind)
    wanted = torch.stack((low - zero, high - zero), -1).flatten(-2)
    assert found.dtype == kind and torch.equal(found.float(), wanted.float())


@pytest.mark.parametrize(
    ("assembly", "kind", "bits"),
    [(w4.TO_BFLOAT16, torch.bfloat16, w4.BITS_BFLOAT16), (w4.TO_FLOAT16, torch.float16, w4.BITS_FLOAT16)],
)
def test_the_assembly_has_the_same_constants(assembly: Any, kind: torch.dtype, bits: Any) -> None:
    """No interpreter takes it. 0xEA is what the operation gives for a, b and c of 0xF0, 0xCC and 0xAA."""
    assert 0xF0 & 0xCC | 0xAA == 0xEA
    assert f"$1, 0x{w4.FOUR_BITS.value:08X}, 0x{bits.value:X}, 0xEA;" in assembly.value
    one = torch.ones(2, dtype=kind).view(torch.int32).item()
    assert f"mov.b32 one, 0x{one:X};" in assembly.value


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
