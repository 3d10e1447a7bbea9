"""Which tokens of a step run with which adapter, for the products of the model to look up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.grouped_lora_tiles import plan_lora_tiles
from ..plan import NO_ADAPTER

SlotOfToken = npt.NDArray[np.int32]
Grouped = TypeVar("Grouped")


class Segment(NamedTuple):
    """The rows that run with the adapter in `slot`. rows: [count] int64 on the device; None for all."""

    slot: int
    rows: Tensor | None


class StepSegments(ABC, Generic[Grouped]):
    """The running step's tokens, grouped by adapter: None for a step without adapters, which then costs its products
    nothing.

    A model's last layer goes on with some of the tokens only: it says so by `narrow`.
    """

    def __init__(self, device: torch.device) -> None:
        self.now: Grouped | None = None
        self._narrowed: Grouped | None = None
        self._device = device

    def begin(self, slots: SlotOfToken, wanted: npt.NDArray[np.int64]) -> None:
        """Before a forward pass. slots: [tokens], NO_ADAPTER for the model itself; `wanted`: the tokens, in this order,
        with which the last layer goes on."""
        self.now = self._narrowed = None
        if (slots != NO_ADAPTER).any():
            self.now, self._narrowed = self._grouped(slots), self._grouped(slots[wanted])

    def narrow(self) -> None:
        """From here on products see only the wanted tokens."""
        self.now = self._narrowed

    @abstractmethod
    def _grouped(self, slots: SlotOfToken) -> Grouped: ...


class RowSegments(StepSegments[Sequence[Segment]]):
    """One segment for each adapter, for `grouped_lora`."""

    def _grouped(self, slots: SlotOfToken) -> Sequence[Segment]:
        if len(slots) and (slots == slots[0]).all():
            return [Segment(int(slots[0]), None)] if slots[0] != NO_ADAPTER else []
        return [
            Segment(int(slot), torch.from_numpy(np.flatnonzero(slots == slot)).to(self._device))
            for slot in np.unique(slots)
            if slot != NO_ADAPTER
        ]


class TiledSegments(StepSegments[Tensor]):
    """Tiles of tokens of one adapter, for `grouped_lora_tiles`."""

    def follow(self, tiles: Tensor) -> None:
        """In place of `begin`, for a step over fixed memory in which every token is wanted: the tiles are what lies in
        `tiles` when it runs."""
        self.now = self._narrowed = tiles

    def _grouped(self, slots: SlotOfToken) -> Tensor:
        return plan_lora_tiles(slots, self._device)
