"""Requests whose grammar is being compiled, in the engine's loop: they are live, bounded, and end at any time."""

from __future__ import annotations

import time
from array import array
from collections import deque

from headway.core.blocks import root_key
from headway.core.errors import HeadwayError, Internal
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_ABORTED, FINISH_REASON_LENGTH
from headway.worker.engine import Abort, Compiled, Engine, Fail, Leave, StepReport, Stop, Submit
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Request, Scheduler

LIMITS = Limits(
    page_size=4, total_pages=8, max_context_tokens=32, max_sequences=1, token_budget=8, max_waiting=3, vocab_size=8
)


def request(id: int, session: int = 1, deadline: float = float("inf")) -> Request:
    return Request(
        session=session,
        id=id,
        tokens=array("I", [5, 6]),
        prompt_tokens=2,
        max_new_tokens=1,
        sampling=SamplingParams(),
        root=root_key("tests"),
        page_size=4,
        deadline=deadline,
    )


class Loop:
    """Runs the engine over commands until it has nothing left to do, and gathers what it says."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.engine = Engine(Scheduler(LIMITS, PagePool(8, 4)), self, self.reports.append)
        self.plans: deque[StepPlan] = deque()

    def send(self, plan: StepPlan) -> None:
        self.plans.append(plan)

    def receive(self) -> StepResult:
        plan = self.plans.popleft()
        return StepResult(plan.step, [3 for work in plan.work if work.sample])

    def say(self, *commands: object) -> None:
        """Takes these commands as `run` does, and works them off."""
        for command in commands:
            self.engine.inbox.put(command)  # type: ignore[arg-type]
        self.engine._drain_inbox(block=False)
        while self.engine._scheduler.busy:
            self.engine._step()
        self.engine._report()

    @property
    def ends(self) -> dict[int, int]:
        return {o.id: o.finish for report in self.reports for o in report.outputs.get(1, []) if o.finish}

    @property
    def refused(self) -> dict[int, HeadwayError]:
        return {r.id: r.error for report in self.reports for r in report.refusals.get(1, [])}

    @property
    def waiting(self) -> int:
        return self.engine.figures().waiting


def test_no_more_of_them_than_may_wait_and_each_ends_once() -> None:
    loop = Loop()
    asked = [request(id) for id in range(1, 7)]
    loop.say(*(Submit(one, compiling=True) for one in asked))
    assert set(loop.refused) == {5, 6} and loop.refused[5].reason == "OVERLOADED", "one row and three that may wait"
    assert loop.waiting == 4 and loop.engine.figures().uncached_tokens == 8
    loop.say(Submit(request(7)))
    assert loop.ends == {7: FINISH_REASON_LENGTH}, "they keep nobody without a grammar from the batch"
    loop.say(Compiled(asked[0]), Compiled(asked[1], Internal("grammar: it failed")), Abort(1, 3))
    assert loop.ends == {7: FINISH_REASON_LENGTH, 1: FINISH_REASON_LENGTH, 3: FINISH_REASON_ABORTED}
    assert loop.refused[2].reason == "INTERNAL"
    # What comes too late, or twice, is without effect.
    loop.say(
        *(Compiled(one) for one in (*asked[:3], *asked[4:])), Fail(1, 4, Internal("it is late")), Compiled(asked[3])
    )
    assert set(loop.refused) == {2, 4, 5, 6} and len(loop.ends) == 3
    assert loop.waiting == loop.engine.figures().running == 0
    assert not loop.engine._requests


def test_they_end_with_their_time_their_session_and_the_loop() -> None:
    loop = Loop()
    late = request(1, deadline=time.monotonic() - 1)
    loop.engine.inbox.put(Submit(late, compiling=True))
    for id, session in ((2, 2), (3, 1)):
        loop.engine.inbox.put(Submit(request(id, session), compiling=True))
    loop.engine.inbox.put(Leave(2))
    loop.engine.inbox.put(Stop())
    loop.engine.run()
    assert loop.ends == {1: FINISH_REASON_ABORTED, 3: FINISH_REASON_ABORTED}
    assert not loop.engine._requests and loop.waiting == 0
    assert not any(report.outputs.get(2) for report in loop.reports)
