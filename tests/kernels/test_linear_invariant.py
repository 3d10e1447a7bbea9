"""Products by tiles of a fixed number of rows, on CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from headway.kernels.linear_invariant import CPU_ROWS, linear_invariant, linear_invariant_reference, tiled_product


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 40), (1024, 96), (4096, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_has_the_same_bits_in_any_batch_and_at_any_place(dtype: torch.dtype, inputs: int, outputs: int) -> None:
    """The library's own product of the wider shapes has not: it sums 1,024 inputs otherwise from 200 rows on, and 4,096
    in bfloat16 at 12."""
    random = torch.Generator().manual_seed(inputs)
    x = torch.randn(300, inputs, generator=random).to(dtype)
    weight, bias = (torch.randn(*shape, generator=random).to(dtype) for shape in ((outputs, inputs), (outputs,)))
    together = linear_invariant(x, weight, bias)
    wanted = linear_invariant_reference(x, weight, bias)
    torch.testing.assert_close(together, wanted, rtol=1e-2, atol=2e-3 if dtype == torch.float32 else 0.5)
    row_major = weight.t().contiguous()
    whole = tiled_product(x, row_major)
    for rows in (*range(1, 14), CPU_ROWS - 1, CPU_ROWS, CPU_ROWS + 1, 200, 255):
        for first in (0, 7, 300 - rows):
            part = x[first : first + rows]
            assert torch.equal(linear_invariant(part, weight, bias), together[first : first + rows]), (rows, first)
            assert torch.equal(tiled_product(part, row_major), whole[first : first + rows]), (rows, first)


def test_no_rows_and_columns_that_are_a_slice() -> None:
    x, weight = torch.randn(3, 40)[:, 4:20], torch.randn(16, 8)
    torch.testing.assert_close(tiled_product(x, weight), x @ weight)
    assert tiled_product(x[:0], weight).shape == (0, 8)
