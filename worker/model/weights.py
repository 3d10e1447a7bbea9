"""Reads one rank's weights by their part in the model: rows split, columns split, or whole."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ..adapters.sites import Projection, Site
from .linear import PLAIN, Linear, Products
from .quantization import Quantization
from .quantized import Piece, read_quantized
from .sources import TensorSource
from .split import Part


class WeightReader:
    """Tensors below one prefix of a source, as `dtype` on `device`. Each goes straight to its place there: parts of
    one matrix are never collected first.

    `first` is true on the rank that adds the bias of an output which is summed over ranks. `sites` are all products
    read so far, by this reader and those made from it, for adapters to act on. `quantization` is how those products
    are stored that are not stored plainly, and `products` how plain ones are computed.
    """

    def __init__(
        self,
        source: TensorSource,
        dtype: torch.dtype,
        device: torch.device,
        first: bool,
        prefix: str = "",
        quantization: Quantization | None = None,
    ) -> None:
        self.source = source
        self.dtype = dtype
        self.device = device
        self.first = first
        self.prefix = prefix
        self.quantization = quantization
        self.sites: list[Site] = []
        self.products: Products = PLAIN

    def inside(self, prefix: str) -> WeightReader:
        """A reader for the names below `prefix`."""
        prefix = self.prefix + prefix
        inner = WeightReader(self.source, self.dtype, self.device, self.first, prefix, self.quantization)
        inner.sites, inner.products = self.sites, self.products
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
        added = self.empty(sum(sizes)) if bias else None
        if added is not None:
            for (name, outputs, part), out in zip(parts, torch.split(added, sizes), strict=True):
                self.vector(f"{name}.bias", outputs, part, out)
        how = self._quantized([name for name, _, _ in parts])
        if how is not None:
            pieces = [Piece(name, outputs, inputs, part, Part(0, inputs)) for name, outputs, part in parts]
            return self._adaptable(read_quantized(self, how, pieces, added), parts, inputs, Part(0, inputs))
        weight = self.empty(sum(sizes), inputs)
        for (name, outputs, part), out in zip(parts, torch.split(weight, sizes), strict=True):
            self.rows(f"{name}.weight", outputs, inputs, part, out)
        return self._adaptable(Linear(weight, added, how=self.products), parts, inputs, Part(0, inputs))

    def columns(self, name: str, outputs: int, inputs: int, part: Part, bias: bool) -> Linear:
        """A layer of which this rank holds some of the inputs; the ranks' outputs are to be summed."""
        added = self.vector(f"{name}.bias", outputs) if bias and self.first else None
        how = self._quantized([name])
        if how is not None:
            linear = read_quantized(self, how, [Piece(name, outputs, inputs, Part(0, outputs), part)], added)
        else:
            linear = Linear(self.inputs(f"{name}.weight", outputs, inputs, part), added, how=self.products)
        return self._adaptable(linear, [(name, outputs, Part(0, outputs))], inputs, part)

    def stored(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, dim: int = 0, part: Part | None = None
    ) -> Tensor:
        """Tensor `name`, or its part along `dim`, as `dtype`: for whole numbers and fp8, what the file has to hold."""
        size = [*shape]
        if part is not None:
            size[dim] = part.size
        return self._read(name, shape, dim, part, torch.empty(size, dtype=dtype, device=self.device))

    def shape(self, name: str, *choices: tuple[int, ...]) -> tuple[int, ...]:
        """The one of `choices` in which the tensor is stored; the first, for the refusal to name, if in none."""
        found = self.source.shape(self.prefix + name)
        return found if found in choices else choices[0]

    def where(self, name: str) -> str:
        """What a refusal calls the tensors of product `name`."""
        return f"{self.source.file(self.prefix + name)}: tensor {self.prefix}{name}"

    def _quantized(self, names: list[str]) -> Quantization | None:
        """How products that are to be one are quantized; None for plain ones."""
        if self.quantization is None:
            return None
        marked = [self.holds(f"{name}.{self.quantization.layout.mark}") for name in names]
        if any(marked) and not all(marked):
            plain = self.prefix + names[marked.index(False)]
            raise ConfigError(
                f"{plain} is not quantized, and {self.prefix + names[marked.index(True)]} is: products of one input "
                "have to be stored alike"
            )
        return self.quantization if all(marked) else None

    def _adaptable(self, linear: Linear, parts: list[tuple[str, int, Part]], inputs: int, input_part: Part) -> Linear:
        projections = tuple(Projection(self.prefix + name, outputs, part) for name, outputs, part in parts)
        self.sites.append(Site(linear, inputs, input_part, projections))
        return linear

    def _read(self, name: str, shape: tuple[int, ...], dim: int, part: Part | None, out: Tensor) -> Tensor:
        self.source.read(self.prefix + name, shape, out, dim=dim, part=part)
        return out
