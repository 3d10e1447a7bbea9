"""How fast products in C are on this processor, in either type: what `--dtype auto` goes by. Needs no torch."""

from __future__ import annotations

import functools
import math
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import AVAILABLE, BFLOAT16, FLOAT32, native

SIZE = 1024  # inputs and outputs: 2 MiB of bfloat16, about what a layer of a small model has
ROWS = (1, 16)  # a single stream is bound by memory, a batch by arithmetic
REPEATS = 12
ALIGNMENT = 64
WORTH_IT = 1.1  # times as fast: less is no reason to round

Array = npt.NDArray[np.uint8]


class ProductSpeeds(NamedTuple):
    """Microseconds of a product of SIZE inputs and outputs for each of ROWS, the fastest of REPEATS."""

    float32: tuple[float, ...]
    bfloat16: tuple[float, ...]

    @property
    def gain(self) -> float:
        """How many times as fast bfloat16 is, the geometric mean over ROWS."""
        ratios = [wide / narrow for wide, narrow in zip(self.float32, self.bfloat16, strict=True)]
        return math.prod(ratios) ** (1 / len(ratios))

    @property
    def prefer_bfloat16(self) -> bool:
        """Whether a model whose weights are bfloat16 should be computed in it."""
        return self.gain >= WORTH_IT

    def __str__(self) -> str:
        rows = "/".join(map(str, ROWS))
        wide, narrow = ("/".join(f"{value:.0f}" for value in values) for values in self)
        return f"{rows} rows of {SIZE} x {SIZE} in {wide} us as float32, {narrow} us as bfloat16"


@functools.cache
def product_speeds() -> ProductSpeeds | None:
    """Measured once a process, in some 30 ms; None where products do not go through C."""
    if not AVAILABLE:
        return None
    return ProductSpeeds(*(tuple(_fastest(kind, rows) for rows in ROWS) for kind in (FLOAT32, BFLOAT16)))


def _fastest(kind: int, rows: int) -> float:
    item = 4 if kind == FLOAT32 else 2
    # Zeros take as long as other numbers, in pages that have been written to: those never touched are all the same one.
    weight, x, out = (_zeros(size * item) for size in (native.packed_size(kind, SIZE, SIZE), rows * SIZE, rows * SIZE))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        native.multiply(kind, x.ctypes.data, weight.ctypes.data, 0, 0, out.ctypes.data, rows, SIZE, SIZE, False)
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1e6


def _zeros(size: int) -> Array:
    memory = np.full(size + ALIGNMENT, 0, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size]
