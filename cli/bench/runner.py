"""A whole bench: warm-up, then one run for each concurrency or rate."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from ...client import AsyncHeadway, Model, Retry
from .load import Sender, closed_loop, open_loop
from .tally import RunReport, Tally
from .workload import Workload

# Name of the run, requests in it, its tally so far, whether it ended; called a few times a second.
Progress = Callable[[str, int, Tally, bool], None]
WARM_UP_RUN = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: closed loops over `concurrency`, or open loops over `rates`."""

    concurrency: list[int]
    rates: list[float]
    requests: int
    warmup: int
    timeout_s: float


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `headway bench --json`."""

    address: str
    model: Model
    workload: dict[str, str | int]
    runs: list[RunReport]


async def bench(address: str, model: Model, workload: Workload, plan: Plan, progress: Progress) -> BenchReport:
    """Runs the plan. Errors of requests are counted in the report; the cluster's absence is raised."""
    # Its own salt keeps this bench from finding pages that another one, with the same seed, left in the caches.
    salt = f"bench-{uuid.uuid4().hex}"
    runs: list[RunReport] = []
    # No retries: a refusal is a figure here.
    async with AsyncHeadway(address, timeout=plan.timeout_s, retry=Retry(attempts=1)) as headway:

        async def run(number: int, name: str, requests: int, load: Callable[[Sender], Awaitable[None]]) -> Tally:
            sender = Sender(headway, workload, number, model.name, salt)
            async with _shown(progress, name, requests, sender.tally):
                await load(sender)
            return sender.tally

        if plan.warmup:
            callers = max(plan.concurrency or [8])
            await run(WARM_UP_RUN, "warm-up", plan.warmup, lambda send: closed_loop(send, plan.warmup, callers))
        for number, callers in enumerate(plan.concurrency, 1):
            load = _closed(plan.requests, callers)
            tally = await run(number, f"{callers} at once", plan.requests, load)
            runs.append(tally.report("closed", callers, None))
        for number, rate in enumerate(plan.rates, 1 + len(plan.concurrency)):
            tally = await run(number, f"{rate:g} a second", plan.requests, _open(plan.requests, rate, workload.seed))
            runs.append(tally.report("open", None, rate))
    described: dict[str, str | int] = {
        "input_tokens": str(workload.input_tokens),
        "output_tokens": str(workload.output_tokens),
        "shared_prefix": workload.shared_prefix,
        "seed": workload.seed,
        "warmup": plan.warmup,
    }
    return BenchReport(address=address, model=model, workload=described, runs=runs)


def _closed(requests: int, callers: int) -> Callable[[Sender], Awaitable[None]]:
    return lambda send: closed_loop(send, requests, callers)


def _open(requests: int, rate: float, seed: int) -> Callable[[Sender], Awaitable[None]]:
    return lambda send: open_loop(send, requests, rate, seed)


@contextlib.asynccontextmanager
async def _shown(progress: Progress, name: str, requests: int, tally: Tally) -> AsyncIterator[None]:
    """Reports progress four times a second while the body runs, and once at its end."""

    async def watch() -> None:
        while True:
            progress(name, requests, tally, False)
            await asyncio.sleep(0.25)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        progress(name, requests, tally, True)
