"""A plan's work as arrays: what a step does for all rows at once, no row by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from ..plan import RowWork

Int64 = npt.NDArray[np.int64]


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

    def before(self, other: StepWork) -> StepWork:
        """This work, then the other."""
        if not len(self.row):
            return other
        return StepWork(
            np.concatenate((self.row, other.row)),
            np.concatenate((self.computed, other.computed)),
            np.concatenate((self.count, other.count)),
            np.concatenate((self.sample, other.sample)),
        )

    def ordered(self) -> Int64:
        """Items with one token first, then by length, then as they come: their indices."""
        return np.lexsort((self.end, self.count > 1)).astype(np.int64, copy=False)


_FIELDS = [attrgetter(name) for name in ("row", "computed", "count", "sample")]


def step_work(work: Sequence[RowWork]) -> StepWork:
    """The arrays of a plan's items."""
    row, computed, count, sample = (np.fromiter(map(field, work), np.int64, len(work)) for field in _FIELDS)
    return StepWork(row, computed, count, sample.astype(np.bool_))
