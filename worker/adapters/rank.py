"""The adapters of one rank: what was read, and what lies in the slots."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...core.errors import ConfigError
from ..plan import FORGET
from .reader import HostAdapter, read_adapter
from .segments import StepSegments
from .sites import Site
from .slots import Slots


class RankAdapters:
    """`read` runs on any thread while steps go on; all else is the step loop's. Adapters are known by number."""

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        layers: int,
        slots: int,
        max_rank: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Room for `slots` adapters; with none of them nothing is adapted. `layers` are the whole model's."""
        self._sites = sites
        self._layers = layers
        self._max_rank = max_rank
        self._dtype = dtype
        self._host: dict[int, HostAdapter] = {}
        # Numbers of which the other of the two, the end of the reading and FORGET, is still to come.
        self._forgotten: set[int] = set()
        self._failed: set[int] = set()
        self._lock = threading.Lock()
        self._slots = Slots(sites, slots, max_rank, dtype, device) if slots else None

    def read(self, number: int, directory: Path) -> tuple[str, int]:
        """Reads this rank's part of an adapter into host memory; its revision and highest rank. Raises ConfigError."""
        adapter = None
        try:
            if self._slots is None:
                raise ConfigError("max_adapters is 0: this replica takes no adapters")
            adapter = read_adapter(directory, self._sites, self._layers, self._max_rank, self._dtype)
        finally:
            with self._lock:
                if number in self._forgotten:
                    self._forgotten.remove(number)
                elif adapter is None:
                    self._failed.add(number)
                else:
                    self._host[number] = adapter
        return adapter.revision, adapter.rank

    def apply(self, changes: Sequence[tuple[int, int]]) -> None:
        """The plan's changes. Raises KeyError for a number that was not read."""
        for slot, number in changes:
            if slot == FORGET:
                with self._lock:
                    if number in self._failed:
                        self._failed.remove(number)
                    elif self._host.pop(number, None) is None:
                        self._forgotten.add(number)  # its reading is still under way
            else:
                assert self._slots is not None, "without slots nothing was read"
                self._slots.fill(slot, self._host[number])

    @property
    def segments(self) -> StepSegments[Any] | None:
        """Told of each step before its forward pass; None when there are no slots."""
        return self._slots.segments if self._slots is not None else None
