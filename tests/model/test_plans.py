"""A plan that contradicts the batch is an error at once, on each rank alike, and never a wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rank_group import PAGE_SIZE, spec_for

from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.pooling_pb2 import POOLING_MEAN
from headway.worker.execution.rows import PlanError, Rows
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import alone
from headway.worker.plan import NO_ADAPTER, RowAdded, RowWork, StepPlan, StepResult

PAGES = 8


def added(row: int, tokens: list[int], pages: list[int]) -> RowAdded:
    return RowAdded(row, np.array(tokens, "<u4").tobytes(), len(tokens), 0, pages, SamplingParams(temperature=0.0))


def plan(
    step: int = 0,
    freed: tuple[int, ...] = (),
    new: tuple[RowAdded, ...] = (),
    appended: tuple[tuple[int, int], ...] = (),
    work: tuple[RowWork, ...] = (),
) -> StepPlan:
    return StepPlan(step, list(freed), list(new), list(appended), list(work))


@pytest.fixture
def runner(checkpoint: Callable[[str], Path]) -> Runner:
    runner = Runner(spec_for(checkpoint("gqa-tied"), 1, 1), alone(), lambda share: None)
    runner.allocate(PAGES)
    runner.step(plan(new=(added(0, [1, 2, 3], [0]),), work=(RowWork(0, 0, 3, True, []),)))
    return runner


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (plan(freed=(1,)), "row 1 is not in the batch"),
        (plan(freed=(0, 0)), "row 0 is not in the batch"),
        (plan(appended=((4, 5),)), "row 4 is not in the batch"),
        (plan(new=(added(0, [1], [1]),)), "row 0 is taken"),
        (plan(new=(added(1, [], [1]),)), "token ids must be below 128"),
        (plan(new=(added(1, [128], [1]),)), "token ids must be below 128"),
        (plan(new=(added(1, [5], [PAGES]),)), "not all among the 8"),
        (plan(work=(RowWork(0, 3, 1, True, [PAGES + 1]),)), "not all among the 8"),
        (plan(work=(RowWork(0, 3, 1, True, []),)), "but 3 tokens known"),
        (plan(appended=((0, 9),), work=(RowWork(0, 3, 1, False, []),)), "but 4 tokens known"),
        (plan(new=(added(1, [7] * 9, [1]),), work=(RowWork(1, 0, 9, True, []),)), "9 tokens do not fit 1 pages of 8"),
        (StepPlan(1, [], [], [], [], decodes=bytes([1, 0, 0, 0])), "row 1 is not in the batch"),
        (StepPlan(1, [], [], [], [], decodes=bytes([0, 0, 1, 0])), "row 65536 is not in the batch"),
        (StepPlan(1, [], [], [], [], decodes=bytes(4), grown=[(0, PAGES)]), "not all among the 8"),
        (StepPlan(1, [], [], [(0, 5)] * 5, [], decodes=bytes(4)), "9 tokens do not fit 1 pages of 8"),
    ],
)
def test_contradictions(runner: Runner, wrong: StepPlan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        runner.step(wrong)


def test_a_step_without_work(runner: Runner) -> None:
    assert runner.step(plan(step=7, freed=(0,))) == StepResult(7, [])


def test_results_follow_the_order_of_the_plan(runner: Runner) -> None:
    """Whatever order the batch is computed in."""
    prompts = {1: [5] * 7, 2: [40], 3: [11, 12, 13]}
    new = tuple(added(row, tokens, [row]) for row, tokens in prompts.items())
    work = {row: RowWork(row, 0, len(tokens), True, []) for row, tokens in prompts.items()}
    single = {}
    for row in prompts:
        result = runner.step(plan(new=(new[row - 1],), work=(work[row],)))
        assert result is not None
        single[row] = result.token_ids[0]
    runner.step(plan(freed=(1, 2, 3)))
    assert len(set(single.values())) == 3
    result = runner.step(plan(step=3, new=new, work=(work[2], work[1], work[3])))
    assert result is not None
    assert result.token_ids == [single[2], single[1], single[3]]


def test_rows_grow_and_keep_what_they_hold() -> None:
    rows = Rows(PAGE_SIZE, 10_000, 128)
    rows.apply(plan(new=(added(0, [1, 2], [3]),)))
    many = np.random.default_rng(0).integers(0, 128, 5000).tolist()
    rows.apply(plan(new=(added(90, many, list(range(700))),), appended=((0, 4),)))
    assert rows.tokens[0, :3].tolist() == [1, 2, 4] and rows.known[0] == 3
    assert rows.tokens[90, :5000].tolist() == many
    assert rows.tables[90, :700].tolist() == list(range(700))
    assert rows.tables[0, 0] == 3 and rows.live.nonzero()[0].tolist() == [0, 90]


def test_the_next_owner_of_a_row_has_nothing_of_the_last_ones() -> None:
    rows = Rows(PAGE_SIZE, 100, 128)
    last = msgspec.structs.replace(added(0, [1] * 20, [3, 4, 5]), pooling=POOLING_MEAN, adapter=2)
    rows.apply(plan(new=(last,), work=(RowWork(0, 0, 20, False, []),)))
    rows.apply(plan(freed=(0,), new=(added(0, [7, 8], [9]),), work=(RowWork(0, 0, 2, True, []),)))
    assert (rows.known[0], rows.pages[0], rows.adapters[0]) == (2, 1, NO_ADAPTER)
    assert rows.tables[0, 0] == 9 and not rows.pooling
