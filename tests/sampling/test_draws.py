"""How rows draw, on its way to a device: kernels find it where they were compiled to look."""

from __future__ import annotations

import pytest
import torch

from headway.core.sampling import SamplingParams
from headway.worker.execution.transfer import ALIGNMENT, packed, unpacked
from headway.worker.sampling.draws import DrawTable, draws_of


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 13, 17])
def test_every_tensor_begins_where_a_wide_load_may(count: int) -> None:
    """Else a kernel is compiled anew for the first step with an odd number of rows, while others wait for it."""
    table = DrawTable()
    for row in range(count):
        table.set(row, SamplingParams(seed=row + 5, temperature=0.5 + row, top_p=0.9, min_p=0.25), sequence=row % 3)
    rows = list(reversed(range(count)))
    arrays = table.take(rows, [100 + row for row in rows])[:3]
    buffer = packed(arrays, pinned=False)
    found = draws_of(*unpacked(buffer, arrays))
    assert all((part.data_ptr() - buffer.data_ptr()) % ALIGNMENT == 0 for part in found)
    assert all(part.is_contiguous() and part.shape == (count,) for part in found)
    at = torch.tensor(rows)
    assert torch.equal(found.temperature, 0.5 + at) and torch.equal(found.seed, at + 5)
    assert torch.equal(found.position, 100 + at) and torch.equal(found.sequence, at % 3)
    assert torch.equal(found.min_p, torch.full((count,), 0.25)) and (found.top_p - 0.9).abs().max() < 1e-6


def test_rows_are_filtered_where_one_of_them_is() -> None:
    table = DrawTable()
    table.set(0, SamplingParams(temperature=1.0), 0)
    table.set(1, SamplingParams(temperature=1.0, top_p=0.5), 0)
    assert not table.take([0], [1]).filtered and table.take([0, 1], [1, 1]).filtered
