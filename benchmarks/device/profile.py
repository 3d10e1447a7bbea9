"""What a device is busy with, by torch's profiler: shares of the time by kind of kernel, and the idle share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from .profile_kinds import KINDS, kind_of

MIDDLE = (0.2, 0.9)  # of the run: without the prompts' ends, and the rows that finish


class Span(NamedTuple):
    """Something that ran on the device, from `begin` to `end`, in any unit of time."""

    name: str
    begin: float
    end: float


def profile(run: Callable[[], object], device: torch.device) -> dict[str, float] | None:
    """Shares of the middle of `run`, by kind and "idle"; None where there is nothing to see."""
    if device.type != "cuda":
        run()
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize(device)
    spans = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if "CUDA" in str(event.device_type)
    ]
    return shares(spans)


def shares(spans: Iterable[Span]) -> dict[str, float] | None:
    """Of spans in any order, of which several may run at once: shares by kind, and "idle", where there is none."""
    ordered = sorted(spans, key=lambda span: span.begin)
    if not ordered:
        return None
    first, last = ordered[0].begin, max(span.end for span in ordered)
    low, high = (first + part * (last - first) for part in MIDDLE)
    found = dict.fromkeys(KINDS, 0.0)
    reached, busy = low, 0.0
    for span in ordered:
        begin, end = max(span.begin, reached), min(span.end, high)
        if end > begin:  # what runs beside something that began before counts with that
            found[kind_of(span.name)] += end - begin
            busy += end - begin
            reached = end
    whole = max(high - low, 1e-12)
    return {kind: part / whole for kind, part in found.items()} | {"idle": 1.0 - busy / whole}
