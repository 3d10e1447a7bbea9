"""How each row draws, in arrays: those of a step are picked out by one indexing, and go to the device in one copy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...core.sampling import SamplingParams
from ...kernels.sample import Draws

MINIMUM_ROWS = 16
ALIGNED = 4  # numbers of four bytes: what pointers to a row of a HostDraws are multiples of, whatever the rows are


class HostDraws(NamedTuple):
    """What `draws_of` needs on the device. floats: [3, rows or a few more] float32, so many that each begins where a
    wide load may, or kernels would be compiled anew for odd numbers of rows; integers: alike, int64; top_k: [rows]
    int32. `filtered` says whether any row has a min-p, top-k or top-p."""

    floats: npt.NDArray[np.float32]
    integers: npt.NDArray[np.int64]
    top_k: npt.NDArray[np.int32]
    filtered: bool


def draws_of(floats: Tensor, integers: Tensor, top_k: Tensor) -> Draws:
    """The arrays of a HostDraws, moved to the device."""
    floats, integers = floats[:, : len(top_k)], integers[:, : len(top_k)]
    return Draws(floats[0], top_k, floats[1], floats[2], integers[0], integers[2], integers[1])


class DrawTable:
    """The parameters of all rows, [rows] each; they grow by doubling."""

    def __init__(self) -> None:
        self._floats = np.zeros((3, MINIMUM_ROWS), np.float32)  # temperature, top-p, min-p
        self._integers = np.zeros((2, MINIMUM_ROWS), np.int64)  # seed's bits, sequence
        self._top_k = np.zeros(MINIMUM_ROWS, np.int32)

    def set(self, row: int, params: SamplingParams, sequence: int) -> None:
        """Row `row` draws like this from now on."""
        while row >= len(self._top_k):
            self._floats = np.pad(self._floats, ((0, 0), (0, self._floats.shape[1])))
            self._integers = np.pad(self._integers, ((0, 0), (0, self._integers.shape[1])))
            self._top_k = np.pad(self._top_k, (0, len(self._top_k)))
        self._floats[:, row] = params.temperature, params.top_p, params.min_p
        seed = params.seed - (1 << 64) if params.seed >= 1 << 63 else params.seed
        self._integers[:, row] = seed, sequence
        self._top_k[row] = params.top_k

    def take(self, rows: list[int], positions: list[int]) -> HostDraws:
        """Of these rows, whose tokens will stand at `positions`."""
        top_k = self._top_k[rows]
        width = -(-len(rows) // ALIGNED) * ALIGNED
        floats, integers = np.zeros((3, width), np.float32), np.zeros((3, width), np.int64)
        floats[:, : len(rows)] = self._floats[:, rows]
        integers[:2, : len(rows)] = self._integers[:, rows]
        integers[2, : len(rows)] = positions
        filtered = bool((top_k > 0).any() or (floats[1, : len(rows)] < 1.0).any() or (floats[2] > 0.0).any())
        return HostDraws(floats, integers, top_k, filtered)
