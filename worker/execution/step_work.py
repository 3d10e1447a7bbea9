"""A plan's work as arrays: what a step does for all rows at once, no row by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from ..plan import RowWork

Int64 = npt.NDArray[np.int64]
_NONE: Int64 = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class StepWork:
    """The fields of each item, [items], in the plan's order; rows that decode without an item are items, too."""

    row: Int64
    computed: Int64
    count: Int64
    sample: npt.NDArray[np.bool_]

    @property
    def end(self) -> Int64:
        """Tokens of each row that are computed after the step."""
        return self.computed + self.count

    def ordered(self) -> Int64:
        """Items with one token first, then by length, then as they come: their indices."""
        return np.lexsort((self.end, self.count > 1)).astype(np.int64, copy=False)


_FIELDS = [attrgetter(name) for name in ("row", "computed", "count", "sample")]


def step_work(work: Sequence[RowWork], decodes: Int64 = _NONE, computed: Int64 = _NONE) -> StepWork:
    """The arrays of a plan's items, then of the rows `decodes`, [rows], of which so many tokens are `computed`."""
    decoding = StepWork(decodes, computed, np.ones_like(decodes), np.ones(len(decodes), np.bool_))
    if not work:
        return decoding
    fields = [np.fromiter(map(field, work), np.int64, len(work)) for field in _FIELDS]
    items = StepWork(fields[0], fields[1], fields[2], fields[3].astype(np.bool_))
    return _joined(items, decoding) if len(decodes) else items


def _joined(first: StepWork, then: StepWork) -> StepWork:
    return StepWork(
        np.concatenate((first.row, then.row)),
        np.concatenate((first.computed, then.computed)),
        np.concatenate((first.count, then.count)),
        np.concatenate((first.sample, then.sample)),
    )
