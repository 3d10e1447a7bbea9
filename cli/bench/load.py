"""The two ways to load a cluster: a fixed number of callers, or arrivals that do not wait for anybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ...client import AsyncHeadway, HeadwayError, Usage
from .tally import Tally
from .workload import BenchRequest, Workload

# Index of a request, and when it was due by time.perf_counter().
Send = Callable[[int, float], Awaitable[None]]


class Sender:
    """Sends the requests of one run and measures them into its tally."""

    def __init__(self, headway: AsyncHeadway, workload: Workload, run: int, model: str, salt: str) -> None:
        self._headway = headway
        self._workload = workload
        self._run = run
        self._model = model
        self._salt = salt
        self.tally = Tally()

    async def __call__(self, index: int, due: float) -> None:
        """One request from begin to end; errors of the cluster are counted by their reason. Once the run is hopeless
        nothing is sent any more."""
        if self.tally.hopeless:
            return
        request = self._workload.request(self._run, index)
        self.tally.start(due)
        try:
            await self._measure(request, due)
        except HeadwayError as error:
            self.tally.failed(error.reason)
        finally:
            self.tally.end()

    async def _measure(self, request: BenchRequest, due: float) -> None:
        tally, first, last = self.tally, 0.0, 0.0
        stream = self._headway.generate_stream(
            request.token_ids,
            model=self._model,
            max_new_tokens=request.max_new_tokens,
            ignore_eos=True,
            temperature=0.0,
            return_token_ids=True,
            cache_salt=self._salt,
        )
        async with stream:
            async for _ in stream:
                now = time.perf_counter()
                if first:
                    tally.itl.add(now - last)
                else:
                    first = now
                    tally.ttft.add(now - due)
                last = now
        usage = stream.usage
        assert usage is not None
        self._count(usage)
        tally.e2e.add(time.perf_counter() - due)
        if usage.completion_tokens > 1:
            tally.tpot.add((last - first) / (usage.completion_tokens - 1))

    def _count(self, usage: Usage) -> None:
        tally = self.tally
        tally.completed += 1
        tally.failed_in_a_row = 0
        tally.prompt_tokens += usage.prompt_tokens
        tally.cached_tokens += usage.cached_tokens
        tally.output_tokens += usage.completion_tokens
        tally.migrations += usage.migrations


async def closed_loop(send: Send, requests: int, concurrency: int) -> None:
    """`concurrency` callers, each with its next request as soon as its last one ends."""
    indices = iter(range(requests))

    async def caller() -> None:
        for index in indices:
            await send(index, time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, requests)):
            group.create_task(caller())


async def open_loop(send: Send, requests: int, rate: float, seed: int) -> None:
    """Poisson arrivals at `rate` a second, drawn before the run. Latency counts from when a request was due, so that a
    cluster, or a generator, which falls behind cannot hide it."""
    import numpy

    gaps = numpy.random.default_rng([seed, 0xA221]).exponential(1 / rate, requests)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index, offset in enumerate(numpy.cumsum(gaps).tolist()):
            due = began + offset
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            group.create_task(send(index, due))  # type: ignore[arg-type]
