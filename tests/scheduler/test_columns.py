"""Which requests decode in columns, and that others see what they are by now. Random requests test what comes of it."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque

import pytest
from fake_ranks import PAGE_SIZE, FakeRanks, decoding_rows
from msgspec import structs
from test_admission import ROOT, Engine, expected

from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH
from headway.worker.engine import Engine as Loop
from headway.worker.engine import StepReport, Stop, Submit
from headway.worker.plan import NONE_ALLOWED, NOT_A_NUMBER, StepPlan, StepResult
from headway.worker.scheduler import Request, Scheduler
from headway.worker.scheduler.decodes import MOST_ID
from headway.worker.scheduler.scheduler import IN_COLUMNS


def engine_of(count: int) -> tuple[Engine, list[Request]]:
    """So many requests that have a first token each."""
    engine = Engine(pages=400, max_sequences=count + 1, token_budget=200)
    requests = [engine.submit([number + 5, 3], 40) for number in range(count)]
    while any(request.output_tokens < 1 for request in requests):
        engine.step()
    return engine, requests


def test_enough_of_them_have_no_items() -> None:
    engine, requests = engine_of(IN_COLUMNS)
    for step in range(2, 12):
        plan = engine.scheduler.schedule()
        assert sorted(decoding_rows(plan)) == sorted(request.row for request in requests)
        assert not plan.work and not plan.appended and plan.total_tokens == IN_COLUMNS
        update = engine.scheduler.update(engine.ranks.step(plan))
        assert not update.outcomes and update.advanced.ids.tolist() == [request.id for request in requests]
        tokens = [expected([request.id + 4, 3], step)[-1] for request in requests]
        assert update.advanced.tokens.tolist() == tokens


def test_a_few_are_items() -> None:
    engine, requests = engine_of(IN_COLUMNS - 1)
    plan = engine.scheduler.schedule()
    assert not plan.decodes and sorted(work.row for work in plan.work) == sorted(request.row for request in requests)


def test_who_is_looked_at_one_by_one_is_an_item() -> None:
    engine, requests = engine_of(IN_COLUMNS)
    scored = engine.submit([4, 4, 4], 5, scored=True)
    plan = engine.scheduler.schedule()
    assert [work.row for work in plan.work] == [scored.row] and len(decoding_rows(plan)) == IN_COLUMNS
    engine.scheduler.update(engine.ranks.step(plan))
    plan = engine.scheduler.schedule()
    assert len(decoding_rows(plan)) == IN_COLUMNS + 1, "its prompt's scores have been told"
    engine.scheduler.update(engine.ranks.step(plan))
    for request in requests[:2]:
        engine.scheduler.abort(request)
    plan = engine.scheduler.schedule()
    assert len(plan.work) == IN_COLUMNS - 1 and not plan.decodes, "too few are left for columns"


def test_the_next_plan_is_made_while_one_runs() -> None:
    engine, requests = engine_of(IN_COLUMNS)
    scheduler, results = engine.scheduler, deque[StepResult]()
    while scheduler.busy:
        while scheduler.may_plan:
            results.append(engine.ranks.step(scheduler.schedule()))
        assert len(results) == 2 or not any(request.output_tokens < 38 for request in requests)
        scheduler.update(results.popleft())
    assert [request.tokens.tolist() for request in requests] == [expected([r.id + 4, 3], 40) for r in requests]


def test_the_forecast_counts_all_tokens() -> None:
    """By what it says somebody waits, or is let in: the same whether the others are in columns or not."""
    found = []
    for in_columns in (1, 1000):
        engine = Engine(pages=60, max_sequences=20, token_budget=200, forecast=True)
        engine.scheduler = Scheduler(engine.limits, engine.pool, in_columns=in_columns)
        requests: list[Request] = []
        entered: list[int] = []
        for step in range(200):
            if step % 3 == 0 and len(requests) < 40:
                requests.append(engine.submit([step + 5] * 3, 30 + step % 7))
            plan: StepPlan = engine.scheduler.schedule()
            entered += [step for _ in plan.added]
            engine.scheduler.update(engine.ranks.step(plan))
        found.append(entered)
    assert found[0] == found[1] and len(found[0]) > 2 * 60 // (40 // PAGE_SIZE)


@pytest.mark.parametrize("verdict", [NOT_A_NUMBER, NONE_ALLOWED])
def test_one_without_a_token_ends_alone(verdict: int) -> None:
    """A page that it fills with what was no number is not offered to others."""
    engine, requests = engine_of(IN_COLUMNS + 1)
    engine.step()
    bad = requests[3]
    plan = engine.scheduler.schedule()
    result = engine.ranks.step(plan)
    tokens = list(result.token_ids)
    tokens[decoding_rows(plan).index(bad.row)] = verdict
    update = engine.scheduler.update(structs.replace(result, token_ids=tokens))
    (outcome,) = update.outcomes
    assert outcome.request is bad and outcome.error is not None and not outcome.token_ids
    others = [request for request in requests if request is not bad]
    assert update.advanced.ids.tolist() == [request.id for request in others]
    assert not bad.pages and engine.pool.has(bad.key(0, PAGE_SIZE)) == (verdict == NONE_ALLOWED)
    assert set(engine.run()) == set(others)
    assert all(request.tokens.tolist() == expected([request.id + 4, 3], 40) for request in others)


class Plane:
    """Ranks in this process."""

    def __init__(self, ranks: FakeRanks) -> None:
        self.ranks, self.results, self.decoding = ranks, deque[StepResult](), 0

    def send(self, plan: StepPlan) -> None:
        self.decoding += plan.decoding
        self.results.append(self.ranks.step(plan))

    def receive(self) -> StepResult:
        return self.results.popleft()


def test_each_session_hears_of_its_own() -> None:
    """Ids are a session's own, and may be larger than a column holds."""
    engine, sessions, ids, steps = Engine(400, max_sequences=32, token_budget=200), range(3), (1, 2, 3, 2**64 - 1), 20
    got: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    left = {(session, id) for session in sessions for id in ids}

    def publish(report: StepReport) -> None:
        for session, decoded in report.decoded.items():
            for id, token in zip(decoded.ids.tolist(), decoded.tokens.tolist(), strict=True):
                got[session, id].append(token)
        for session, outputs in report.outputs.items():
            for output in outputs:
                got[session, output.id] += output.token_ids
                if output.finish == FINISH_REASON_LENGTH:
                    left.remove((session, output.id))
        if not left:
            loop.inbox.put(Stop())

    plane = Plane(engine.ranks)
    loop = Loop(engine.scheduler, plane, publish)
    prompts = {(session, id): [10 * session + id % 7, 5] for session, id in sorted(left)}
    for (session, id), prompt in prompts.items():
        tokens, sampling = array("I", prompt), SamplingParams()
        request = Request(
            session=session, id=id, tokens=tokens, prompt_tokens=2, max_new_tokens=steps, sampling=sampling, root=ROOT,
            page_size=PAGE_SIZE,
        )  # fmt: skip
        loop.inbox.put(Submit(request))
    loop.run()
    assert got == {handle: expected(prompt, steps)[2:] for handle, prompt in prompts.items()}
    assert plane.decoding > 0 and max(ids) > MOST_ID
