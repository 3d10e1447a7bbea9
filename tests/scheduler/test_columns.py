"""Which requests decode in columns, and that others see what they are by now. Random requests test what comes of it."""

from __future__ import annotations

from collections import deque

from fake_ranks import PAGE_SIZE, decoding_rows
from test_admission import Engine, expected

from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Request, Scheduler
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
