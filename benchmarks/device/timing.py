"""How long something takes on the device, from a cold second-level cache."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

CACHE_BYTES = 256 << 20  # more than any device's second-level cache
WARM_UPS = 3
AHEAD_CYCLES = (
    1_000_000  # half a millisecond, in which the host launches all that is measured: its pace is no part of it
)


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 15) -> float:
    """Median over `repeats` calls, each after the cache has been swept."""
    if device.type != "cuda":
        function()
        begun = time.perf_counter()
        function()
        return time.perf_counter() - begun
    sweep = torch.empty(CACHE_BYTES, dtype=torch.int8, device=device)
    for _ in range(WARM_UPS):
        function()
    cuda: Any = torch.cuda
    events = [[cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in events:
        sweep.zero_()
        cuda._sleep(AHEAD_CYCLES)
        begin.record()
        function()
        end.record()
    torch.cuda.synchronize(device)
    return float(statistics.median(begin.elapsed_time(end) for begin, end in events)) / 1e3
