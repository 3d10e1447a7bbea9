"""Runners whose decode steps are captured, on CPU: what is captured is run again instead of being replayed."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rank_group import spec_for

from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec
from headway.worker.execution.device_steps import DeviceSteps
from headway.worker.execution.replay import PlainReplayer, Step
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import Communicator, alone
from headway.worker.plan import SAMPLED, RowAdded, RowWork, StepPlan

PAGE_SIZE = 8
PAGES_A_ROW = 8
ROWS = 12
ENGINE = EngineSpec(page_size=PAGE_SIZE, max_sequences=ROWS, token_budget=1024)
WAYS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, seed=7),
    SamplingParams(temperature=0.8, seed=2**64 - 1, top_k=20, top_p=0.8, presence_penalty=0.5),
]


class Counting(PlainReplayer):
    """Also counts, and gives each result away in the same memory, as graphs do."""

    def __init__(self, most: int = 1000) -> None:
        self.captures, self.replays, self.most = 0, 0, most

    def capture(self, step: Step) -> Step:
        if self.captures == self.most:
            raise RuntimeError("no memory")
        self.captures += 1
        out = step()

        def replay() -> torch.Tensor:
            self.replays += 1
            return out.copy_(step())

        return replay


def plain_runner(path: Path, comm: Communicator | None = None) -> Runner:
    comm = comm or alone()
    runner = Runner(spec_for(path, comm.place.tp, 1, engine=ENGINE), comm, lambda share: None)
    runner.allocate(ROWS * PAGES_A_ROW)
    return runner


def captured_runner(path: Path, comm: Communicator | None = None, replayer: Counting | None = None) -> Runner:
    """Its steps go the way that they go on a device."""
    comm = comm or alone()
    runner = Runner(spec_for(path, comm.place.tp, 1, engine=ENGINE), comm, lambda share: None)
    runner.on_device, runner.replayer = DeviceSteps(runner), replayer or Counting()
    runner.allocate(ROWS * PAGES_A_ROW)
    with torch.inference_mode():
        for cache in runner.caches:
            for part in cache.tensors():
                part[: ROWS * PAGES_A_ROW] = torch.nan  # what no row wrote must not reach anybody
    return runner


def prefill(runner: Runner, prompts: list[list[int]], ways: list[int]) -> list[int]:
    added = [
        RowAdded(
            row, np.array(prompt, "<u4").tobytes(), len(prompt), 0,
            list(range(row * PAGES_A_ROW, (row + 1) * PAGES_A_ROW))[:: -1 if row % 2 else 1], WAYS[way], row,
        )
        for row, (prompt, way) in enumerate(zip(prompts, ways, strict=True))
    ]  # fmt: skip
    work = [RowWork(row, 0, len(prompt), True, []) for row, prompt in enumerate(prompts)]
    result = runner.step(StepPlan(0, [], added, [], work))
    assert result is not None
    return result.token_ids


def decode(
    runner: Runner, prompts: list[list[int]], ways: list[int], turns: list[list[int]], *, told: bool, items: bool = True
) -> list[list[int]]:
    """Tokens of a step for each of `turns`, the rows in it in their order. `told`: plans have the tokens' ids; without
    `items` they have nothing but the rows."""
    last = dict(enumerate(prefill(runner, prompts, ways)))
    lengths = {row: len(prompt) for row, prompt in enumerate(prompts)}
    results = []
    for step, turn in enumerate(turns, start=1):
        appended = [(row, last[row] if told else SAMPLED) for row in turn]
        work = [RowWork(row, lengths[row], 1, True, []) for row in turn]
        plan = StepPlan(step, [], [], appended, work)
        if not items:
            plan = StepPlan(step, [], [], [], [], decodes=np.array(turn, "<u4").tobytes())
        result = runner.step(plan)
        assert result is not None
        results.append(result.token_ids)
        for row, token in zip(turn, result.token_ids, strict=True):
            last[row] = token
            lengths[row] += 1
    runner.step(StepPlan(99, list(lengths), [], [], []))
    return results


def capture_all(runner: Runner) -> None:
    assert runner.on_device is not None
    while runner.on_device.graphs is not None and runner.on_device.graphs._line:
        runner.on_device.graphs._seen += 1
        runner.step(StepPlan(0, [], [], [], []))


@dataclass(frozen=True)
class OnRanks:
    """For RankGroup.run: each rank's tokens of steps whose plans tell none, in which some are captured on the way."""

    path: Path
    captured: bool

    def __call__(self, comm: Communicator) -> list[list[int]]:
        runner = captured_runner(self.path, comm) if self.captured else plain_runner(self.path, comm)
        prompts = [[7] * 5, [60, 8], [99] * 11]
        added = [
            RowAdded(row, np.array(prompt, "<u4").tobytes(), len(prompt), 0, [2 * row, 2 * row + 1], WAYS[row], row)
            for row, prompt in enumerate(prompts)
        ]
        work = [RowWork(row, 0, len(prompt), True, []) for row, prompt in enumerate(prompts)]
        results = [runner.step(StepPlan(0, [], added, [], work))]
        for step in range(4):
            runner.step(StepPlan(0, [], [], [], []))
            work = [RowWork(row, len(prompt) + step, 1, True, []) for row, prompt in enumerate(prompts)]
            results.append(runner.step(StepPlan(1, [], [], [(row, SAMPLED) for row in range(3)], work)))
        if self.captured:
            assert runner.replayer is not None and runner.replayer.replays > 0
        del runner
        gc.collect()  # it and its steps know each other; the rank's process goes on to other tests
        return [result.token_ids for result in results if result is not None]
