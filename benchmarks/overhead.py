"""Time of a decode step outside the model and sampling: the leader's share, and that of a rank.

The scheduler, the plan's and the result's way through msgpack, and the rank's batch and inputs are the real ones; plans
are answered one by one, so that nothing hides behind anything.
"""

from __future__ import annotations

import time
from array import array
from typing import NamedTuple

import msgspec
import numpy as np

from headway.core.blocks import BlockKey
from headway.core.sampling import SamplingParams
from headway.worker.execution.runner import Runner
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Request, Scheduler


class Overhead(NamedTuple):
    """Seconds of each step."""

    leader: list[float]
    rank: list[float]

    @property
    def both(self) -> list[float]:
        return [leader + rank for leader, rank in zip(self.leader, self.rank, strict=True)]


def measure_overhead(runner: Runner, batch: int, context: int, steps: int, sampling: SamplingParams) -> Overhead:
    """`batch` requests of about `context` tokens decode for `steps` steps, on a runner that has sampled nothing yet."""
    scheduler = _scheduler(runner, batch, context, steps, sampling)
    sampler = _Timed(runner)
    encode, plans = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(StepPlan)
    results = msgspec.msgpack.Decoder(StepResult)
    found = Overhead([], [])
    while len(found.rank) < steps:
        begun = time.perf_counter()
        plan = scheduler.schedule()
        message = encode(plan)
        sent = time.perf_counter()
        sampler.seconds = 0.0
        result = runner.step(plans.decode(message))
        assert result is not None
        answer = encode(result)
        ended = time.perf_counter()
        scheduler.update(results.decode(answer))
        if plan.total_tokens == batch:
            found.leader.append(sent - begun + time.perf_counter() - ended)
            found.rank.append(ended - sent - result.model_seconds - sampler.seconds)
    return found


class _Timed:
    """Seconds that the runner's sampler took."""

    def __init__(self, runner: Runner) -> None:
        assert runner.sampler is not None
        self.seconds = 0.0
        self._sample = runner.sampler.sample
        runner.sampler.sample = self  # type: ignore[assignment, method-assign]

    def __call__(self, *given: object) -> list[int]:
        start = time.perf_counter()
        tokens = self._sample(*given)  # type: ignore[arg-type]
        self.seconds += time.perf_counter() - start
        return tokens


def _scheduler(runner: Runner, batch: int, context: int, steps: int, sampling: SamplingParams) -> Scheduler:
    size, longest = runner.info.page_size, context * 5 // 4 + 2 * steps
    pages = batch * (-(-longest // size) + 2)
    runner.allocate(pages)
    limits = Limits(
        page_size=size,
        total_pages=pages,
        max_context_tokens=runner.info.max_context_tokens,
        max_sequences=batch,
        token_budget=runner.spec.engine.token_budget,
        max_waiting=batch,
        vocab_size=runner.info.vocab_size,
    )
    scheduler = Scheduler(limits, PagePool(pages, size))
    draw = np.random.default_rng(0)
    for number in range(batch):
        length = int(draw.integers(context * 3 // 4, context * 5 // 4 + 1))
        tokens = array("I", draw.integers(5, runner.info.vocab_size, length).tolist())
        scheduler.submit(
            Request(
                session=0,
                id=number,
                tokens=tokens,
                prompt_tokens=length,
                max_new_tokens=2 * steps,
                sampling=sampling,
                root=BlockKey(bytes(16)),
                page_size=size,
            )
        )
    return scheduler
