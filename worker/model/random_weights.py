"""Random weights for benchmarks: any shape of model from config.json alone.

Each element is a hash of its position in the whole tensor and of the tensor's name, in whole numbers of 32 bits that
every device computes alike. So each rank draws its own slice and no more, where it is to lie, and the model is the same
function at every split. The hash is "lowbias32", two rounds of multiplication and shifts found by search (C. Wellons,
"Prospecting for Hash Functions", 2018), with half of the name's key before each round.
"""

from __future__ import annotations

import math

import torch
import xxhash
from torch import Tensor

from .split import Part

# Elements drawn at once: few enough for a core's cache, many enough that a GPU is busy for longer than a launch takes.
CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}
MULTIPLIERS = (0x7FEB352D, 0x846CA68B - (1 << 32))
SPREAD = math.sqrt(3) / (1 << 31)  # brings a uniform signed 32-bit number to variance 1
VECTOR_STD = 0.02


class RandomWeights:
    """A TensorSource of every name and shape.

    Matrices have variance 1 / inputs, which keeps activations of order one at every depth; norms are near 1, biases
    near 0.
    """

    def __init__(self) -> None:
        self._counters: dict[torch.device, Tensor] = {}

    def holds(self, name: str) -> bool:
        """False: nothing is stored, and a model reads the layout that it takes by itself."""
        return False

    def shape(self, name: str) -> None:
        """None, likewise."""

    def file(self, name: str) -> str:
        return "random weights"

    def read(self, name: str, shape: tuple[int, ...], out: Tensor, *, dim: int = 0, part: Part | None = None) -> None:
        """Draws tensor `name`, or its `part` along `dim`, into contiguous `out`."""
        part = part or Part(0, shape[dim])
        counter, hashed = self._counter(out.device), _Hash(name)
        scale, shift = _distribution(name, shape)
        inner = math.prod(shape[dim + 1 :])
        stride, first, width = shape[dim] * inner, part.start * inner, part.size * inner
        if width == stride:
            first, width = 0, out.numel()
        # Each row of `table` is a run of positions that begins `stride` after the row before.
        table = out.view(-1, width)
        columns = min(width, counter.numel())
        rows = max(1, counter.numel() // columns)
        for top in range(0, len(table), rows):
            for left in range(0, width, columns):
                block = table[top : top + rows, left : left + columns]
                height, length = block.shape
                starts = (counter[:height] * _wrapped(stride)).add_(_wrapped(top * stride + first + left))
                numbers = hashed(starts.unsqueeze(1) + counter[:length])
                block.copy_(numbers.to(torch.float32).mul_(scale).add_(shift))

    def _counter(self, device: torch.device) -> Tensor:
        if device not in self._counters:
            size = CHUNK.get(device.type, CHUNK["cpu"])
            self._counters[device] = torch.arange(size, dtype=torch.int32, device=device)
        return self._counters[device]


class _Hash:
    """A function of 32 bits for each name."""

    def __init__(self, name: str) -> None:
        key = xxhash.xxh3_64_intdigest(name.encode())
        self._keys = _wrapped(key), _wrapped(key >> 32)

    def __call__(self, x: Tensor) -> Tensor:
        """int32 to int32, in place."""
        x.bitwise_xor_(self._keys[0])
        _fold(x, 16).mul_(MULTIPLIERS[0])
        x.bitwise_xor_(self._keys[1])
        _fold(x, 15).mul_(MULTIPLIERS[1])
        return _fold(x, 16)


def _fold(x: Tensor, bits: int) -> Tensor:
    """`x ^ (x >> bits)` of unsigned numbers: torch shifts the sign in, which the mask takes away."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _wrapped(number: int) -> int:
    """The low 32 bits, as int32 has them."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Scale and shift of the hash's numbers."""
    if len(shape) > 1:
        return SPREAD / math.sqrt(shape[-1]), 0.0
    return SPREAD * VECTOR_STD, 0.0 if name.endswith(".bias") else 1.0
