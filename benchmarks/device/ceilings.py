"""What the device gives at best, measured here and now: memory bandwidth and matrix rate."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .timing import seconds


class Ceilings(NamedTuple):
    """Bytes read and written a second by a device copy, and floating-point operations a second of a bf16 product."""

    bandwidth: float
    matrix_rate: float

    def floor(self, size: float, operations: float) -> float:
        """The least seconds in which so many bytes can move and so many operations be done."""
        return max(size / self.bandwidth, operations / self.matrix_rate)


def measure(device: torch.device, *, tiny: bool) -> Ceilings:
    """A copy of 2 GiB, and a product of two matrices of 8192 x 8192."""
    source = torch.empty(1 << (20 if tiny else 31), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source), device)
    side = 64 if tiny else 8192
    left, right = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    product = seconds(lambda: left @ right, device)
    return Ceilings(2 * source.numel() / copy, 2 * side**3 / product)
