"""Products by tiles of a fixed number of rows, on CPU."""

from __future__ import annotations

import pytest
import torch

from headway.kernels.linear_invariant import CPU_ROWS, linear_invariant, linear_invariant_reference, tiled_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_has_the_same_bits_in_any_batch_and_at_any_place(dtype: torch.dtype) -> None:
    """The library's own product of these shapes has not: 1,024 inputs are summed otherwise from 200 rows on."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(300, 1024, generator=random).to(dtype)
    weight, bias = torch.randn(96, 1024, generator=random).to(dtype), torch.randn(96, generator=random).to(dtype)
    together = linear_invariant(x, weight, bias)
    wanted = linear_invariant_reference(x, weight, bias)
    torch.testing.assert_close(together, wanted, rtol=1e-2, atol=1e-3 if dtype == torch.float32 else 0.2)
    for rows in (1, 2, 5, CPU_ROWS - 1, CPU_ROWS, CPU_ROWS + 1, 200, 255):
        for first in (0, 7, 300 - rows):
            part = x[first : first + rows]
            assert torch.equal(linear_invariant(part, weight, bias), together[first : first + rows]), (rows, first)


def test_no_rows_and_columns_that_are_a_slice() -> None:
    x, weight = torch.randn(3, 40)[:, 4:20], torch.randn(16, 8)
    torch.testing.assert_close(tiled_product(x, weight), x @ weight)
    assert tiled_product(x[:0], weight).shape == (0, 8)
