"""Reads one rank's weights by their part in the model: rows split, columns split, or whole."""

from __future__ import annotations

import torch
from torch import Tensor

from ..adapters.sites import Projection, Site
from .checkpoint import Checkpoint
from .linear import Linear
from .split import Part


class WeightReader:
    """Tensors below one prefix of a checkpoint, as `dtype` on `device`.

    `first` is true on the rank that adds the bias of an output which is summed over ranks. `sites` are all products
    read so far, by this reader and those made from it, for adapters to act on.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, first: bool, prefix: str = ""
    ) -> None:
        self.checkpoint = checkpoint
        self.dtype = dtype
        self.device = device
        self.first = first
        self.prefix = prefix
        self.sites: list[Site] = []

    def inside(self, prefix: str) -> WeightReader:
        """A reader for the names below `prefix`."""
        inner = WeightReader(self.checkpoint, self.dtype, self.device, self.first, self.prefix + prefix)
        inner.sites = self.sites
        return inner

    def vector(self, name: str, size: int, part: Part | None = None) -> Tensor:
        """[size], or its part."""
        return self._read(name, (size,), 0, part)

    def rows(self, name: str, rows: int, columns: int, part: Part) -> Tensor:
        """The part's rows of a [rows, columns] matrix."""
        return self._read(name, (rows, columns), 0, part)

    def inputs(self, name: str, rows: int, columns: int, part: Part) -> Tensor:
        """The part's columns of a [rows, columns] matrix."""
        return self._read(name, (rows, columns), 1, part)

    def fused_rows(self, parts: list[tuple[str, int, Part]], inputs: int, bias: bool) -> Linear:
        """Several layers of one input as one product; (name, outputs, part of the outputs) each."""
        weight = torch.cat([self.rows(f"{name}.weight", outputs, inputs, part) for name, outputs, part in parts])
        added = None
        if bias:
            added = torch.cat([self.vector(f"{name}.bias", outputs, part) for name, outputs, part in parts])
        return self._adaptable(Linear(weight, added), parts, inputs, Part(0, inputs))

    def columns(self, name: str, outputs: int, inputs: int, part: Part, bias: bool) -> Linear:
        """A layer of which this rank holds some of the inputs; the ranks' outputs are to be summed."""
        weight = self._read(f"{name}.weight", (outputs, inputs), 1, part)
        linear = Linear(weight, self.vector(f"{name}.bias", outputs) if bias and self.first else None)
        return self._adaptable(linear, [(name, outputs, Part(0, outputs))], inputs, part)

    def _adaptable(self, linear: Linear, parts: list[tuple[str, int, Part]], inputs: int, input_part: Part) -> Linear:
        projections = tuple(Projection(self.prefix + name, outputs, part) for name, outputs, part in parts)
        self.sites.append(Site(linear, inputs, input_part, projections))
        return linear

    def _read(self, name: str, shape: tuple[int, ...], dim: int, part: Part | None) -> Tensor:
        tensor = self.checkpoint.read(self.prefix + name, shape, self.dtype, dim=dim, part=part)
        return tensor.to(self.device)
