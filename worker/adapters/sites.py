"""Where adapters act: the products of one rank's layers, and which modules of the checkpoint each of them is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..model.linear import Linear
    from ..model.split import Part

_LAYER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")


class Projection(NamedTuple):
    """One module of the checkpoint, [outputs, inputs], of which this rank holds `part` of the outputs."""

    module: str
    outputs: int
    part: Part


class Site(NamedTuple):
    """A product of one or several projections of one input, side by side. `input_part` of the `inputs` are here."""

    linear: Linear
    inputs: int
    input_part: Part
    projections: tuple[Projection, ...]

    @property
    def widest(self) -> int:
        """Projections that share the thin product."""
        return len(self.projections)

    @property
    def outputs(self) -> int:
        """Columns of the product on this rank."""
        return sum(projection.part.size for projection in self.projections)


def layer_of(module: str) -> tuple[int, str]:
    """The number of the module's layer, and its name with that left out; -1 for a module outside of layers."""
    match = _LAYER.search(module)
    if match is None:
        return -1, module
    return int(match[0]), module[: match.start()] + "*" + module[match.end() :]
