"""What routers predict from: a decode step is the time from one token of a row to its next, whatever is out, and a
prompt is measured however small the steps are."""

from array import array
from collections import deque
from types import SimpleNamespace

import pytest

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.engine import Engine, StepReport, Stop, Submit, loop
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Request, Scheduler

STAGE_S = 0.004
TOKENS = 30


class Pipeline:
    """Each stage takes STAGE_S for a plan, and stages work on different plans at once. Its clock is the only one."""

    def __init__(self, stages: int) -> None:
        self.now = 0.0
        self.free_at = [0.0] * stages
        self.out: deque[tuple[StepPlan, float]] = deque()

    def send(self, plan: StepPlan) -> None:
        at = self.now
        for stage, free_at in enumerate(self.free_at):
            at = self.free_at[stage] = max(at, free_at) + STAGE_S
        self.out.append((plan, at))

    def receive(self) -> StepResult:
        plan, at = self.out.popleft()
        self.now = max(self.now, at)
        return StepResult(plan.step, [3] * sum(work.sample for work in plan.work), STAGE_S)


def serve(
    monkeypatch: pytest.MonkeyPatch, stages: int, requests: int, prompt: int, token_budget: int
) -> tuple[list[StepReport], float]:
    """All reports until the last of equal requests ends, and when that was."""
    limits = Limits(
        page_size=16, total_pages=60, max_context_tokens=100, max_sequences=6, token_budget=token_budget,
        max_waiting=9, vocab_size=50, stages=stages,
    )  # fmt: skip
    reports: list[StepReport] = []
    pipeline = Pipeline(stages)

    def publish(report: StepReport) -> None:
        reports.append(report)
        if report.figures.requests == requests and not report.figures.running:
            engine.inbox.put(Stop())

    monkeypatch.setattr(
        loop, "time", SimpleNamespace(monotonic=lambda: pipeline.now, perf_counter=lambda: pipeline.now)
    )
    engine = Engine(Scheduler(limits, PagePool(60, 16)), pipeline, publish)
    for number in range(requests):
        request = Request(
            session=0, id=number, tokens=array("I", [number] * prompt), prompt_tokens=prompt, max_new_tokens=TOKENS,
            sampling=SamplingParams(), root=root_key("tests"), page_size=16,
        )  # fmt: skip
        engine.inbox.put(Submit(request))
    engine.run()
    return reports, pipeline.now


@pytest.mark.parametrize("requests", [1, 2, 6])
@pytest.mark.parametrize("stages", [1, 3])
def test_a_decode_step_is_the_time_between_tokens_of_a_row(
    monkeypatch: pytest.MonkeyPatch, stages: int, requests: int
) -> None:
    reports, ended_at = serve(monkeypatch, stages, requests, prompt=2, token_budget=64)
    measured_ms = max(report.figures.decode_step_ms for report in reports[-3:])
    assert measured_ms == pytest.approx(ended_at / TOKENS * 1000, rel=0.15)


@pytest.mark.parametrize("token_budget", [1, 2, 8, 64])
def test_prompts_are_measured_with_every_token_budget(monkeypatch: pytest.MonkeyPatch, token_budget: int) -> None:
    reports, _ = serve(monkeypatch, 1, requests=1, prompt=40, token_budget=token_budget)
    assert reports[-1].figures.prefill_rate == pytest.approx(min(token_budget, 40) / STAGE_S, rel=0.15)
