"""What all measurements of a run share."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from .ceilings import Ceilings

if TYPE_CHECKING:
    from .engine import Bench

LATE = "left out: the time for all of it is over"


@dataclass
class Bed:
    """`tiny` sizes show that the script is whole, on any device. `until` is of the monotonic clock: nothing is begun
    later."""

    device: torch.device
    ceilings: Ceilings
    tiny: bool
    until: float
    benches: dict[str, Bench] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        return time.monotonic() > self.until

    def bench(self, name: str, config: dict[str, Any]) -> Bench:
        """The engine with this model, its kernels compiled and its steps captured; another model's goes before."""
        if name not in self.benches:
            from .end_to_end import made_ready

            self.benches.clear()
            self.tidy()
            self.benches[name] = made_ready(config, self)
        return self.benches[name]

    def tidy(self) -> None:
        """Gives back what nothing holds."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
