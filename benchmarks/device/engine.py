"""The engine from requests to tokens on one device, with dummy weights, by launched and captured steps."""

from __future__ import annotations

import json
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...core.blocks import root_key
from ...core.sampling import SamplingParams
from ...core.specs import EngineSpec, GroupSpec
from ...worker.engine import Engine, Stop, Submit
from ...worker.engine.reports import StepReport
from ...worker.execution.device_steps import DeviceSteps
from ...worker.execution.launched import Launched
from ...worker.execution.replay import PlainReplayer
from ...worker.execution.runner import Runner
from ...worker.execution.step_work import StepWork
from ...worker.pages import PagePool
from ...worker.parallel.communicator import alone
from ...worker.plan import StepPlan, StepResult
from ...worker.scheduler import Limits, Request, Scheduler
from .ceilings import Ceilings
from .work import Work
from .workloads import Ask


@dataclass
class Tally:
    """Steps of one kind. `floor` is the sum of their least times, `model` the seconds between the marks around the
    forward pass."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    floor: float = 0.0
    model: float = 0.0


@dataclass
class Done:
    """A finished workload: in all, and its steps in which every row decodes."""

    seconds: float
    first_token: float
    tokens: int
    all: Tally
    decode: Tally


class Bench:
    """A loaded model; `run` serves a workload from an empty engine, with the cache as the last one left it.

    It is the engine's way to its ranks, too: plans are launched when they are sent, and collected when they are due.
    Without a GPU the steps go the device's way all the same, and captured ones are run again.
    """

    def __init__(self, config: dict[str, Any], device: torch.device, ceilings: Ceilings, engine: EngineSpec) -> None:
        self._ceilings = ceilings
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            spec = GroupSpec(
                replica_id="bench", model_name="bench", model_path=folder, device=device.type, engine=engine,
                load_format="dummy",
            )  # fmt: skip
            runner = self._runner = Runner(spec, alone(device.type), lambda share: None)
        if device.type == "cpu":
            runner.on_device, runner.replayer = DeviceSteps(runner), PlainReplayer()
        runner.allocate(runner.suggested_pages())
        info = runner.info
        self._limits = Limits(
            page_size=info.page_size, total_pages=runner.total_pages,
            max_context_tokens=min(info.max_context_tokens, runner.total_pages * info.page_size),
            max_sequences=engine.max_sequences, token_budget=engine.token_budget, max_waiting=engine.max_waiting,
            vocab_size=info.vocab_size,
        )  # fmt: skip
        self._pool = PagePool(self._limits.total_pages, info.page_size)
        self._root = root_key(info.revision)
        self._work = Work(config)
        self._token_bytes = info.kv_bytes_per_page / info.page_size
        self._out: deque[tuple[StepWork, Launched, float]] = deque()
        self._all, self._decode, self._last = Tally(), Tally(), 0.0

    @property
    def room(self) -> int:
        """Tokens that the cache holds."""
        return self._limits.total_pages * self._limits.page_size

    def run(self, asks: Sequence[Ask]) -> Done:
        """Serves them all at once."""
        scheduler = Scheduler(self._limits, self._pool)
        left, tokens, first = len(asks), 0, 0.0
        self._all, self._decode, self._last = Tally(), Tally(), 0.0

        def publish(report: StepReport) -> None:
            nonlocal left, tokens, first
            if (decoded := report.decoded.get(0)) is not None:
                tokens += len(decoded.ids)
            for output in report.outputs.get(0, ()):
                tokens += len(output.token_ids)
                first = first or time.perf_counter()
                left -= bool(output.finish)
            if not left:
                engine.inbox.put(Stop())

        engine = Engine(scheduler, self, publish)
        for number, ask in enumerate(asks):
            request = Request(
                session=0, id=number, tokens=array("I", ask.prompt), prompt_tokens=len(ask.prompt),
                max_new_tokens=ask.output, sampling=SamplingParams(seed=number), root=self._root,
                page_size=self._limits.page_size,
            )  # fmt: skip
            engine.inbox.put(Submit(request))
        begun = time.perf_counter()
        engine.run()
        spent = time.perf_counter() - begun
        while self._out:
            scheduler.update(self.receive())
        # The rows of the next workload are numbered anew; the ranks must have seen the old ones go.
        self._runner.step(scheduler.schedule())
        return Done(spent, first - begun, tokens, self._all, self._decode)

    def capture(self) -> None:
        """Captures what there is to capture, as a group does while it is idle. After a workload."""
        steps = self._runner.on_device
        while steps is not None and steps.graphs is not None and steps.graphs.left:
            self._runner.step(StepPlan(0, [], [], [], []))

    def send(self, plan: StepPlan) -> None:
        launched = self._runner.launch(plan)
        self._out.append((self._runner.rows.work, launched, time.perf_counter()))

    def receive(self) -> StepResult:
        work, launched, sent = self._out.popleft()
        result = launched.collect()
        assert result is not None
        now = time.perf_counter()
        if len(work.row):
            size = self._work.weights * 2 + int(work.end.sum()) * self._token_bytes
            floor = self._ceilings.floor(size, self._work.operations(work))
            decodes = bool((work.count == 1).all())
            for tally in (self._all, self._decode) if decodes else (self._all,):
                tally.steps += 1
                tally.tokens += len(result.token_ids)
                # While several are out, a step begins when the one before ends.
                tally.seconds += now - max(sent, self._last)
                tally.floor += floor
                tally.model += result.model_seconds
        self._last = now
        return result
