"""Steps launched before the last one's result is known give the tokens of steps run one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from rank_group import RankGroup, spec_for

from headway.core.constraints import TokenRules
from headway.core.sampling import SamplingParams
from headway.worker.execution.device_steps import DeviceSteps
from headway.worker.execution.launched import Launched
from headway.worker.execution.runner import Runner
from headway.worker.execution.transfer import Outgoing, packed, unpacked
from headway.worker.parallel.communicator import alone
from headway.worker.plan import NO_RULES, SAMPLED, PlaceLogprobs, RowAdded, RowWork, StepPlan, StepResult

PAGES_A_ROW = 6
WAYS = [
    (SamplingParams(temperature=0.0), NO_RULES),
    (SamplingParams(temperature=0.9, seed=2**63 + 5), NO_RULES),
    (SamplingParams(temperature=1.3, seed=3, top_k=9, top_p=0.9, min_p=0.02), NO_RULES),
    (SamplingParams(temperature=0.0, repetition_penalty=1.6, frequency_penalty=0.4), NO_RULES),
    (SamplingParams(temperature=0.0), TokenRules(bad_words=tuple((a, b) for a in range(40) for b in range(60, 90)))),
]


def runner_for(path: Path, *, device_steps: bool) -> Runner:
    """Of one rank on CPU; with `device_steps` its steps go the way that they go on a device."""
    runner = Runner(spec_for(path, 1, 1), alone(), lambda share: None)
    runner.allocate(PAGES_A_ROW * 8)
    if device_steps:
        runner.on_device = DeviceSteps(runner)
    return runner


class Rows:
    """Plans for rows that all sample in every step after their prompts."""

    def __init__(self, prompts: list[list[int]], ways: list[int], logprobs: int = -1) -> None:
        self.lengths = [len(prompt) for prompt in prompts]
        self.added = [
            RowAdded(
                row, np.array(prompt, "<u4").tobytes(), len(prompt), 0,
                list(range(row * PAGES_A_ROW, (row + 1) * PAGES_A_ROW)), WAYS[way][0], row, WAYS[way][1],
                logprobs if row % 2 else -1,
            )
            for row, (prompt, way) in enumerate(zip(prompts, ways, strict=True))
        ]  # fmt: skip

    def first(self) -> StepPlan:
        return StepPlan(0, [], self.added, [], [RowWork(row, 0, n, True, []) for row, n in enumerate(self.lengths)])

    def next(self, step: int, tokens: list[int]) -> StepPlan:
        """Step 1 and up, whose rows go on with `tokens`."""
        work = [RowWork(row, length + step - 1, 1, True, []) for row, length in enumerate(self.lengths)]
        return StepPlan(step, [], [], list(enumerate(tokens)), work)

    def untold(self, step: int, items: int) -> StepPlan:
        """The same without tokens; rows from number `items` on come without items."""
        plan = self.next(step, [SAMPLED] * len(self.lengths))
        decodes = np.arange(items, len(self.lengths), dtype="<u4").tobytes()
        return structs.replace(plan, appended=plan.appended[:items], work=plan.work[:items], decodes=decodes)

    def gone(self, step: int) -> StepPlan:
        return StepPlan(step, list(range(len(self.lengths))), [], [], [])


def one_by_one(runner: Runner, rows: Rows, steps: int) -> list[StepResult]:
    results = [runner.step(rows.first())]
    for step in range(1, steps):
        results.append(runner.step(rows.next(step, results[-1].token_ids)))
    runner.step(rows.gone(steps))
    return results


def ahead(runner: Runner, rows: Rows, steps: int, depth: int, items: int = 100) -> list[StepResult]:
    """With up to `depth` steps launched and not collected; the leader tells no token, and has items of so many rows."""
    under_way: deque[Launched] = deque()
    results = []
    for step in range(steps):
        under_way.append(runner.launch(rows.untold(step, items) if step else rows.first()))
        if len(under_way) >= depth:
            results.append(under_way.popleft().collect())
    results += [launched.collect() for launched in under_way]
    runner.step(rows.gone(steps))
    return results


def values(parts: list[tuple[int, PlaceLogprobs]]) -> dict[int, np.ndarray]:
    return {row: np.frombuffer(part.values, "<f4") for row, part in parts}


prompts = st.lists(st.lists(st.integers(5, 127), min_size=1, max_size=20), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def runners(checkpoint: Callable[[str], Path]) -> tuple[Runner, Runner]:
    path = checkpoint("gqa-tied")
    return runner_for(path, device_steps=False), runner_for(path, device_steps=True)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(prompts, st.data())
def test_ahead_of_the_host(runners: tuple[Runner, Runner], prompts: list[list[int]], data: st.DataObject) -> None:
    ways = [data.draw(st.integers(0, len(WAYS) - 1)) for _ in prompts]
    depth, logprobs = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([-1, 0, 4]))
    items = data.draw(st.integers(0, len(prompts)))
    plain, device = runners
    expected = one_by_one(plain, Rows(prompts, ways, logprobs), 8)
    for found in (
        ahead(device, Rows(prompts, ways, logprobs), 8, depth, items),
        ahead(plain, Rows(prompts, ways, logprobs), 8, depth, items),
        one_by_one(device, Rows(prompts, ways, logprobs), 8),
    ):
        assert [result.token_ids for result in found] == [result.token_ids for result in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.step == theirs.step
            assert [(row, part.width, part.ids) for row, part in mine.logprobs] == [
                (row, part.width, part.ids) for row, part in theirs.logprobs
            ]
            for row, wanted in values(theirs.logprobs).items():
                np.testing.assert_allclose(values(mine.logprobs)[row], wanted, rtol=1e-5)


def test_ranks_that_do_not_sample_hear_of_the_tokens(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    group, rows = group_of(2, 1), Rows([[7] * 3, [60, 8], [99] * 11], [0, 1, 2])
    group.load(checkpoint("gqa-tied"))
    told = [group.step(rows.first())[0].token_ids]
    for step in range(1, 6):
        told.append(group.step(rows.next(step, told[-1]))[0].token_ids)
    group.step(rows.gone(6))
    for items in range(4):
        untold = [group.step(rows.first())[0].token_ids]
        untold += [group.step(rows.untold(step, items))[0].token_ids for step in range(1, 6)]
        group.step(rows.gone(6))
        assert untold == told


def test_a_row_without_a_token_harms_nobody_who_goes_on(runners: tuple[Runner, Runner]) -> None:
    """It is planned for once more before the leader hears of it."""
    rows = Rows([[7] * 3, [60, 8]], [0, 0])
    expected = one_by_one(runners[0], rows, 4)
    everything = TokenRules(allowed=(3,), bad_words=((3,),))
    rows.added[0] = RowAdded(0, rows.added[0].tokens, 3, 0, rows.added[0].pages, WAYS[0][0], 0, everything)
    for runner in runners:
        found = ahead(runner, rows, 4, 2)
        assert [result.token_ids[0] for result in found] == [-2] * 4
        assert [result.token_ids[1] for result in found] == [result.token_ids[1] for result in expected]


@given(st.lists(st.tuples(st.sampled_from(["<i8", "<i4", "<f4", "u1"]), st.integers(0, 9)), max_size=6), st.booleans())
def test_arrays_that_travel_together(parts: list[tuple[str, int]], flat: bool) -> None:
    arrays = [np.arange(size).astype(kind).reshape(-1, 1 if not flat else max(1, size)) for kind, size in parts]
    back = unpacked(packed(arrays, pinned=False), arrays)
    assert [tensor.numpy().tolist() for tensor in back] == [array.tolist() for array in arrays]
    assert [tensor.numpy().dtype for tensor in back] == [array.dtype for array in arrays]


def test_results_that_travel_together() -> None:
    outgoing = Outgoing(torch.device("cpu"))
    ids, values = torch.tensor([[1, -2], [2**31 - 1, 0]]), torch.tensor([0.5, -torch.inf, 1e-30])
    numbers = [outgoing.add(ids), outgoing.add(values)]
    outgoing.send()
    outgoing.wait()
    assert outgoing.taken(numbers[0]).tolist() == ids.tolist()
    assert outgoing.taken(numbers[1]).tolist() == values.tolist()
