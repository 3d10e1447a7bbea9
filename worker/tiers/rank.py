"""One rank's slice of the tiers: its layers and KV heads of every page. It copies what plans name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...kernels.launch import moved
from ...kernels.page_copy import PageTensors, gather_pages, scatter_pages
from ..execution.kv_cache import untouched
from ..plan import PageMoves
from .counts import PageCounts
from .disk import DiskJob, DiskTier
from .progress import Progress


def runs(slots: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Slots that lie side by side, for one copy: (place of the first, place after the last, first slot), in order."""
    first = 0
    for place in range(1, len(slots) + 1):
        if place == len(slots) or slots[place] != slots[place - 1] + 1:
            yield first, place, slots[first]
            first = place


class RankTiers:
    """A buffer of host pages, [host pages, words] int32, and the disk's file behind it."""

    def __init__(
        self,
        caches: Sequence[Tensor],
        pages: PageCounts,
        directory: str = "",
        report: Callable[[int], None] = lambda word: None,
    ) -> None:
        """`caches` are the rank's keys, values and scales, [pages, ...] each. On CUDA the buffer is pinned; elsewhere
        it takes memory only where it is written. `report` as for DiskTier. Raises ConfigError."""
        self._pages = PageTensors(caches)
        self._device = caches[0].device
        shape = (pages.host, self._pages.words)
        try:
            if self._device.type == "cuda":
                self._host = torch.empty(shape, dtype=torch.int32, pin_memory=True)
            else:
                self._host = untouched(shape, torch.int32, self._device)
        except (RuntimeError, MemoryError, OSError) as error:
            size = 4 * math.prod(shape)
            raise ConfigError(f"host_pages = {pages.host}: no {size} bytes of host memory: {error}") from None
        self._disk: DiskTier | None = None
        if pages.disk:
            rows = self._host.view(pages.host, -1).view(torch.uint8).numpy()
            self._disk = DiskTier(Path(directory), pages.disk, rows, report)

    @property
    def progress(self) -> Progress:
        """How far this rank's disk is."""
        return self._disk.progress if self._disk is not None else Progress(0, False)

    def apply(self, moves: PageMoves) -> None:
        """Spills, then fetches, on the device's stream; then the disk is told what to do behind it."""
        if moves.spills:
            copies = gather_pages(self._pages, self._numbers([page for page, _ in moves.spills]))
            self._to_host(copies, [slot for _, slot in moves.spills])
        if moves.fetches:
            copies = self._from_host([slot for slot, _ in moves.fetches])
            scatter_pages(self._pages, self._numbers([page for _, page in moves.fetches]), copies)
        if moves.disk:
            assert self._disk is not None, "without a disk tier no plan has jobs for it"
            ready = self._ready()
            for write, slot, disk_slot in moves.disk:
                self._disk.put(DiskJob(write, slot, disk_slot, ready))

    def close(self) -> None:
        """Ends the disk's thread; its file is gone."""
        if self._disk is not None:
            self._disk.close()

    def _numbers(self, pages: list[int]) -> Tensor:
        return moved(torch.tensor(pages), self._device)

    def _to_host(self, copies: Tensor, slots: list[int]) -> None:
        if self._device.type == "cuda":
            for first, last, slot in runs(slots):
                self._host[slot : slot + last - first].copy_(copies[first:last], non_blocking=True)
        else:
            self._host.index_copy_(0, torch.tensor(slots), copies)

    def _from_host(self, slots: list[int]) -> Tensor:
        if self._device.type != "cuda":
            return self._host.index_select(0, torch.tensor(slots))
        copies = torch.empty((len(slots), *self._host.shape[1:]), dtype=torch.int32, device=self._device)
        for first, last, slot in runs(slots):
            copies[first:last].copy_(self._host[slot : slot + last - first], non_blocking=True)
        return copies

    def _ready(self) -> Callable[[], None] | None:
        """What waits for the copies begun so far: on CUDA they may still be under way when the next step is planned."""
        if self._device.type != "cuda":
            return None
        event = torch.cuda.current_stream(self._device).record_event()
        return lambda: event.synchronize()
