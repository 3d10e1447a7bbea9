"""Slots: room for a number of adapters in the device's memory, made once, and how a product finds its adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...kernels.grouped_lora import LoraGroup, LoraPiece, grouped_lora
from ...kernels.grouped_lora_tiles import LoraSlots, column_blocks, grouped_lora_tiles
from ...kernels.launch import runs_on
from ...kernels.linear_invariant import ALIKE_OUTPUTS
from .reader import HostAdapter, Packed
from .segments import RowSegments, StepSegments, TiledSegments
from .sites import Site


class SiteSlots(Protocol):
    """One product's slots. Its `add` is called with each output of the product."""

    def fill(self, slot: int, packed: Packed | None) -> None:
        """Copies what an adapter adds at this site into the slot, in place of the last one's."""
        ...

    def add(self, out: Tensor, x: Tensor) -> Tensor:
        """Adds the adapters' updates for input `x` into `out`."""
        ...


class PackedSlots:
    """Each adapter's matrices lie as they were read: its own ranks, side by side."""

    def __init__(
        self, site: Site, count: int, max_rank: int, dtype: torch.dtype, device: torch.device, segments: RowSegments
    ) -> None:
        ranks = max(ALIKE_OUTPUTS, max_rank * site.widest)
        # Not written yet, so on CPU it takes no memory before an adapter comes.
        self._down = torch.empty((count, site.input_part.size * ranks), dtype=dtype, device=device)
        self._up = torch.empty((count, site.outputs * max_rank), dtype=dtype, device=device)
        self._filled: list[Packed | None] = [None] * count
        self._segments = segments

    def fill(self, slot: int, packed: Packed | None) -> None:
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
        segments = self._segments.now
        if not segments:
            return out
        groups = [LoraGroup(rows, *filled) for slot, rows in segments if (filled := self._filled[slot]) is not None]
        return grouped_lora(out, x, groups)


class UniformSlots:
    """Slots of one shape, with the highest rank's room for every projection: what the device's kernels look up by slot
    number alone."""

    def __init__(
        self, site: Site, count: int, max_rank: int, dtype: torch.dtype, device: torch.device, segments: TiledSegments
    ) -> None:
        widths = [projection.part.size for projection in site.projections]
        self._starts = {sum(widths[:number]): number for number in range(len(widths))}
        self._slots = LoraSlots(
            torch.empty((count, len(widths), max_rank, site.input_part.size), dtype=dtype, device=device),
            torch.empty((count, site.outputs, max_rank), dtype=dtype, device=device),
            torch.zeros((count, len(widths)), dtype=torch.int32, device=device),
            column_blocks(widths).to(device),
        )
        self._segments = segments

    def fill(self, slot: int, packed: Packed | None) -> None:
        down, pieces = packed or (None, [])
        ranks = [0] * len(self._starts)
        for piece in pieces:
            assert down is not None
            projection, rank = self._starts[piece.start], piece.last - piece.first
            ranks[projection] = rank
            self._slots.down[slot, projection, :rank].copy_(down[:, piece.first : piece.last].T)
            self._slots.up[slot, piece.start : piece.stop, :rank].copy_(piece.up.T)
        self._slots.ranks[slot].copy_(torch.tensor(ranks, dtype=torch.int32))

    def add(self, out: Tensor, x: Tensor) -> Tensor:
        tiles = self._segments.now
        return out if tiles is None else grouped_lora_tiles(out, x, self._slots, tiles)


class Slots:
    """All slots of a rank."""

    def __init__(
        self, sites: Sequence[Site], count: int, max_rank: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._sites: list[SiteSlots]
        self.segments: StepSegments[Any]
        if runs_on(device):
            tiled = self.segments = TiledSegments(device)
            self._sites = [UniformSlots(site, count, max_rank, dtype, device, tiled) for site in sites]
        else:
            rows = self.segments = RowSegments(device)
            self._sites = [PackedSlots(site, count, max_rank, dtype, device, rows) for site in sites]
        for site, slots in zip(sites, self._sites, strict=True):
            site.linear.adapt = slots.add

    def fill(self, slot: int, adapter: HostAdapter) -> None:
        """Copies the adapter into the slot."""
        for slots, packed in zip(self._sites, adapter.packed, strict=True):
            slots.fill(slot, packed)
