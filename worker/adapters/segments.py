"""Which tokens of a step run with which adapter, for the products of the model to look up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..plan import NO_ADAPTER

SlotOfToken = npt.NDArray[np.int32]


class Segment(NamedTuple):
    """The rows that run with the adapter in `slot`. rows: [count] int64 on the device; None for all."""

    slot: int
    rows: Tensor | None


class StepSegments:
    """The running step's segments: none for a step without adapters, which then costs its products nothing.

    A model's last layer goes on with some of the tokens only: it says so by `narrow`.
    """

    def __init__(self, device: torch.device) -> None:
        self.now: Sequence[Segment] = ()
        self._narrowed: Sequence[Segment] = ()
        self._device = device

    def begin(self, slots: SlotOfToken, wanted: npt.NDArray[np.int64]) -> None:
        """Before a forward pass. slots: [tokens], NO_ADAPTER for the model itself; `wanted`: the tokens, in this order,
        with which the last layer goes on."""
        self.now = self._narrowed = ()
        if (slots != NO_ADAPTER).any():
            self.now, self._narrowed = self._segments(slots), self._segments(slots[wanted])

    def narrow(self) -> None:
        """From here on products see only the wanted tokens."""
        self.now = self._narrowed

    def _segments(self, slots: SlotOfToken) -> list[Segment]:
        if len(slots) and (slots == slots[0]).all():
            return [Segment(int(slots[0]), None)]
        return [
            Segment(int(slot), torch.from_numpy(np.flatnonzero(slots == slot)).to(self._device))
            for slot in np.unique(slots)
            if slot != NO_ADAPTER
        ]
