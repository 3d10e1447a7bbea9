"""A deadline that covers a call with all its attempts."""

from __future__ import annotations

import math
import time


class Deadline:
    """`timeout_s` from now; `math.inf` means none. Raises ValueError when it is not positive."""

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout must be above 0 seconds (math.inf for none), got {timeout_s}")
        self._at = math.inf if math.isinf(timeout_s) else time.monotonic() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds left, never below zero; None when there is no deadline."""
        return None if math.isinf(self._at) else max(self._at - time.monotonic(), 0.0)
