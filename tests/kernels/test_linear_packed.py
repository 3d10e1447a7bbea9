"""Products with packed weights, for every instruction set that this processor has."""

from __future__ import annotations

import pytest
import torch

from headway.kernels.linear_packed import PackedWeight, linear_packed_reference, whole_numbers
from headway.kernels.native import AVAILABLE, native

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="not built, or turned off")

# inputs, outputs: whole tiles, parts of one in either direction, and the smallest
SHAPES = [(256, 96), (704, 256), (384, 100), (70, 40), (33, 17), (63, 65), (2, 1), (1, 33), (40, 300)]
TYPES = [torch.float32, torch.bfloat16]


def draw(inputs: int, outputs: int, dtype: torch.dtype, rows: int = 200) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(inputs * 1000 + outputs)
    x, weight = torch.randn(rows, inputs, generator=random), torch.randn(outputs, inputs, generator=random)
    return x.to(dtype), weight.to(dtype), torch.randn(outputs, generator=random)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_equals_the_definition(products: str, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    """float32 sums: some units in the last place of the largest; rounded once where the output is bfloat16."""
    x, weight, bias = draw(inputs, outputs, dtype)
    packed = PackedWeight(weight)
    for added in (None, bias):
        found = packed.multiply(x, added, wide=True)
        expected = linear_packed_reference(x, weight, added)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-6 * max(1.0, float(expected.abs().max())))
        assert torch.equal(packed.multiply(x, added), found.to(dtype))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_weights_of_8_bits(products: str, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    """The product of the numbers that they stand for, which are at most half a step from the weight."""
    x, weight, bias = draw(inputs, outputs, dtype)
    packed, (numbers, scales) = PackedWeight(weight, int8=True), whole_numbers(weight)
    assert packed.data.dtype == torch.int8 and packed.data.numel() == PackedWeight(weight).data.numel()
    meant = numbers * scales.unsqueeze(1)
    assert ((meant - weight.float()).abs() <= 0.501 * scales.unsqueeze(1)).all()
    for added in (None, bias):
        found = packed.multiply(x, added, wide=True)
        expected = linear_packed_reference(x, meant, added)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6 * max(1.0, float(expected.abs().max())))
        assert torch.equal(packed.multiply(x, added), found.to(dtype))


def test_a_row_of_zeros_and_one_that_is_not_a_number_in_8_bits(products: str) -> None:
    weight = torch.ones(40, 64)
    weight[3] = 0
    weight[7, 5] = torch.nan
    found = PackedWeight(weight, int8=True).multiply(torch.ones(20, 64))
    assert (found[:, 3] == 0).all() and found[:, 7].isnan().all() and (found[:, 8:] == 64).all()


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 96), (70, 40)])
def test_a_row_has_the_same_bits_in_any_batch(
    products: str, inputs: int, outputs: int, dtype: torch.dtype, int8: bool
) -> None:
    x, weight, bias = draw(inputs, outputs, dtype)
    packed = PackedWeight(weight, int8=int8)
    together = packed.multiply(x, bias, wide=True)
    for rows in range(1, 201):
        first = (rows * 37) % (201 - rows)
        found = packed.multiply(x[first : first + rows], bias, wide=True)
        assert torch.equal(found, together[first : first + rows]), rows
    beside = torch.full((31, inputs), torch.nan, dtype=dtype)  # a neighbour that is not a number stays one alone
    beside[::2] = x[:16]
    assert torch.equal(packed.multiply(beside, bias, wide=True)[::2], together[:16])


def test_more_rows_than_the_cache_is_thought_to_hold(products: str) -> None:
    x, weight, _ = draw(40, 40, torch.bfloat16, 777)
    packed = PackedWeight(weight)
    assert torch.equal(packed.multiply(x)[500:700], packed.multiply(x[500:700]))
    assert packed.multiply(x[:0]).shape == (0, 40)


def test_an_input_that_is_no_slice_of_its_own(products: str) -> None:
    x, weight, _ = draw(64, 33, torch.bfloat16)
    packed = PackedWeight(weight)
    assert torch.equal(packed.multiply(torch.cat((x, x), 1)[:, 64:]), packed.multiply(x))
    with pytest.raises(AssertionError):
        packed.multiply(x[:, :32])
    with pytest.raises(ValueError, match="no type"):
        native.packed_size(2, 1, 1)
