"""How long outputs were lately, and what that says of those that go on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

WINDOW = 1000
PRIOR = (16, 32, 64, 128, 256, 512)  # before there is anything to look back on


class OutputLengths:
    """Lengths in tokens of the last `WINDOW` outputs, in ascending order when asked for."""

    def __init__(self) -> None:
        self._recent = np.zeros(WINDOW, np.int64)
        self._recent[: len(PRIOR)] = PRIOR
        self._count = len(PRIOR)
        self._sorted: Numbers | None = None

    def add(self, length: int) -> None:
        """An output ended, for whatever reason."""
        self._recent[self._count % WINDOW] = length
        self._count += 1
        self._sorted = None

    def totals(self, given: Numbers, quantiles: npt.NDArray[np.float64]) -> Numbers:
        """How long outputs of `given` tokens ([requests]) that go on will be: `quantiles` ([..., requests], below 1) of
        those that were longer. One that is longer than any lately is taken to be halfway."""
        if self._sorted is None:
            self._sorted = np.sort(self._recent[: min(self._count, WINDOW)])
        lengths = self._sorted
        first = np.searchsorted(lengths, given, side="right")
        at = first + (quantiles * (len(lengths) - first)).astype(np.int64)
        return np.where(first < len(lengths), lengths[np.minimum(at, len(lengths) - 1)], 2 * given)
