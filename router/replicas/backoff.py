"""Waits between attempts: short at first, then longer, never in step with other routers."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress


class Backoff:
    """Exponential with jitter; `poke` ends the present wait at once, `reset` starts over after a success."""

    def __init__(self, first_s: float = 0.05, limit_s: float = 2.0) -> None:
        self._first = first_s
        self._limit = limit_s
        self._next = first_s
        self._poked = asyncio.Event()

    def reset(self) -> None:
        self._next = self._first

    def poke(self) -> None:
        """There is a reason to believe that the next attempt succeeds."""
        self.reset()
        self._poked.set()

    async def wait(self) -> None:
        delay = self._next * random.uniform(0.7, 1.3)
        self._next = min(self._limit, self._next * 2)
        # Not asyncio.wait_for: before Python 3.12 it can swallow a cancellation that comes with the result.
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._poked.wait()
        self._poked.clear()
