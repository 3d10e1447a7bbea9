"""Reads one rank's weights by their part in the model: rows split, columns split, or whole."""

from __future__ import annotations

import torch
from torch import Tensor

from ..adapters.sites import Projection, Site
from .linear import Linear
from .sources import TensorSource
from .split import Part


class WeightReader:
    """Tensors below one prefix of a source, as `dtype` on `device`. Each goes straight to its place there: parts of
    one matrix are never collected first.

    `first` is true on the rank that adds the bias of an output which is summed over ranks. `sites` are all products
    read so far, by this reader and those made from it, for adapters to act on.
    """

    def __init__(
        self, source: TensorSource, dtype: torch.dtype, device: torch.device, first: bool, prefix: str = ""
    ) -> None:
        self.source = source
        self.dtype = dtype
        self.device = device
        self.first = first
        self.prefix = prefix
        self.sites: list[Site] = []

    def inside(self, prefix: str) -> WeightReader:
        """A reader for the names below `prefix`."""
        inner = WeightReader(self.source, self.dtype, self.device, self.first, self.prefix + prefix)
        inner.sites = self.sites
        return inner

    def holds(self, name: str) -> bool:
        """Whether this tensor is stored, for architectures that are stored in more than one layout."""
        return self.source.holds(self.prefix + name)

    def empty(self, *shape: int) -> Tensor:
        """Memory of the model's type on its device, to be read into."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def vector(self, name: str, size: int, part: Part | None = None, out: Tensor | None = None) -> Tensor:
        """[size], or its part; into `out` where it is given, as in the others."""
        out = self.empty(part.size if part else size) if out is None else out
        return self._read(name, (size,), 0, part, out)

    def rows(self, name: str, rows: int, columns: int, part: Part, out: Tensor | None = None) -> Tensor:
        """The part's rows of a [rows, columns] matrix."""
        return self._read(name, (rows, columns), 0, part, self.empty(part.size, columns) if out is None else out)

    def inputs(self, name: str, rows: int, columns: int, part: Part, out: Tensor | None = None) -> Tensor:
        """The part's columns of a [rows, columns] matrix."""
        return self._read(name, (rows, columns), 1, part, self.empty(rows, part.size) if out is None else out)

    def stacked(self, name: str, shape: tuple[int, ...], dim: int, part: Part, out: Tensor) -> Tensor:
        """The part along `dim` of a tensor that holds several matrices, into `out`."""
        return self._read(name, shape, dim, part, out)

    def fused_rows(self, parts: list[tuple[str, int, Part]], inputs: int, bias: bool) -> Linear:
        """Several layers of one input as one product; (name, outputs, part of the outputs) each."""
        sizes = [part.size for _, _, part in parts]
        weight = self.empty(sum(sizes), inputs)
        for (name, outputs, part), out in zip(parts, torch.split(weight, sizes), strict=True):
            self.rows(f"{name}.weight", outputs, inputs, part, out)
        added = self.empty(sum(sizes)) if bias else None
        if added is not None:
            for (name, outputs, part), out in zip(parts, torch.split(added, sizes), strict=True):
                self.vector(f"{name}.bias", outputs, part, out)
        return self._adaptable(Linear(weight, added), parts, inputs, Part(0, inputs))

    def columns(self, name: str, outputs: int, inputs: int, part: Part, bias: bool) -> Linear:
        """A layer of which this rank holds some of the inputs; the ranks' outputs are to be summed."""
        weight = self.inputs(f"{name}.weight", outputs, inputs, part)
        linear = Linear(weight, self.vector(f"{name}.bias", outputs) if bias and self.first else None)
        return self._adaptable(linear, [(name, outputs, Part(0, outputs))], inputs, part)

    def _adaptable(self, linear: Linear, parts: list[tuple[str, int, Part]], inputs: int, input_part: Part) -> Linear:
        projections = tuple(Projection(self.prefix + name, outputs, part) for name, outputs, part in parts)
        self.sites.append(Site(linear, inputs, input_part, projections))
        return linear

    def _read(self, name: str, shape: tuple[int, ...], dim: int, part: Part | None, out: Tensor) -> Tensor:
        self.source.read(self.prefix + name, shape, out, dim=dim, part=part)
        return out
