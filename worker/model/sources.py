"""Where a model's tensors come from while it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .split import Part


class TensorSource(Protocol):
    """Gives tensors by their names in a checkpoint."""

    def holds(self, name: str) -> bool:
        """Whether tensor `name` is stored, for architectures that are stored in more than one layout."""
        ...

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape in which tensor `name` is stored; None where it is not."""
        ...

    def file(self, name: str) -> str:
        """Where tensors whose names begin with `name` are stored, for refusals."""
        ...

    def read(self, name: str, shape: tuple[int, ...], out: Tensor, *, dim: int = 0, part: Part | None = None) -> None:
        """Tensor `name`, or its `part` along `dim`, into `out`, which has its shape and any device. For a float type it
        may be stored in any of them; for others it has to be stored as it is wanted.

        `shape` is the whole tensor's, as the configuration implies it. Raises ConfigError for what cannot be given.
        """
        ...


class Recorder:
    """Gives nothing and notes what is asked of `source`: `shapes` and `types` of whole tensors by name, `elements` in
    all parts."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, torch.dtype] = {}
        self.elements = 0

    def holds(self, name: str) -> bool:
        return self._source.holds(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._source.shape(name)

    def file(self, name: str) -> str:
        return self._source.file(name)

    def read(self, name: str, shape: tuple[int, ...], out: Tensor, *, dim: int = 0, part: Part | None = None) -> None:
        self.shapes[name], self.types[name] = shape, out.dtype
        self.elements += out.numel()


class Counted:
    """Gives what `source` gives, and tells `on_progress` the share of `expected` elements that is done, above 0 and at
    most 1, at most a hundred times."""

    def __init__(self, source: TensorSource, expected: int, on_progress: Callable[[float], None]) -> None:
        self._source = source
        self._expected = expected
        self._on_progress = on_progress
        self._done = 0
        self._told = 0

    def holds(self, name: str) -> bool:
        return self._source.holds(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._source.shape(name)

    def file(self, name: str) -> str:
        return self._source.file(name)

    def read(self, name: str, shape: tuple[int, ...], out: Tensor, *, dim: int = 0, part: Part | None = None) -> None:
        self._source.read(name, shape, out, dim=dim, part=part)
        self._done += out.numel()
        if self._done * 100 // self._expected > self._told:
            self._told = self._done * 100 // self._expected
            self._on_progress(self._done / self._expected)
