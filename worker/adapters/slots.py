"""Slots: room for a number of adapters in the device's memory, made once, and how a product finds its adapters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...kernels.grouped_lora import LoraGroup, LoraPiece, grouped_lora
from .reader import HostAdapter, Packed
from .segments import StepSegments
from .sites import Site


class SiteSlots:
    """One product's slots. Its `add` is called with each output of the product."""

    def __init__(
        self, site: Site, count: int, max_rank: int, dtype: torch.dtype, device: torch.device, segments: StepSegments
    ) -> None:
        ranks = max(2, max_rank * site.widest)
        # Not written yet, so on CPU it takes no memory before an adapter comes.
        self._down = torch.empty((count, site.input_part.size * ranks), dtype=dtype, device=device)
        self._up = torch.empty((count, site.outputs * max_rank), dtype=dtype, device=device)
        self._filled: list[Packed | None] = [None] * count
        self._segments = segments

    def fill(self, slot: int, packed: Packed | None) -> None:
        """Copies what an adapter adds at this site into the slot, in place of the last one's."""
        if packed is None:
            self._filled[slot] = None
            return
        down, pieces = packed
        here = self._down[slot, : down.numel()].view(down.shape)
        here.copy_(down)
        placed, at = [], 0
        for piece in pieces:
            up = self._up[slot, at : at + piece.up.numel()].view(piece.up.shape)
            up.copy_(piece.up)
            placed.append(LoraPiece(piece.start, piece.stop, piece.first, piece.last, up))
            at += piece.up.numel()
        self._filled[slot] = (here, placed)

    def add(self, out: Tensor, x: Tensor) -> Tensor:
        """Adds the adapters' updates for input `x` into `out`."""
        segments = self._segments.now
        if not segments:
            return out
        groups = [LoraGroup(rows, *filled) for slot, rows in segments if (filled := self._filled[slot]) is not None]
        return grouped_lora(out, x, groups)


class Slots:
    """All slots of a rank."""

    def __init__(
        self, sites: Sequence[Site], count: int, max_rank: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.segments = StepSegments(device)
        self._sites = [SiteSlots(site, count, max_rank, dtype, device, self.segments) for site in sites]
        for site, slots in zip(sites, self._sites, strict=True):
            site.linear.adapt = slots.add

    def fill(self, slot: int, adapter: HostAdapter) -> None:
        """Copies the adapter into the slot."""
        for slots, packed in zip(self._sites, adapter.packed, strict=True):
            slots.fill(slot, packed)
