"""Decode steps over fixed memory, padded to some numbers of rows, give the tokens of steps made to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from captured import (
    PAGES_A_ROW,
    ROWS,
    WAYS,
    Counting,
    OnRanks,
    capture_all,
    captured_runner,
    decode,
    plain_runner,
    prefill,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rank_group import RankGroup
from served import InProcess

from headway.worker.execution import graphs as module
from headway.worker.execution.graphs import Shape, parts_up_to, sizes
from headway.worker.execution.runner import Runner
from headway.worker.plan import RowAdded, RowWork, StepPlan


@pytest.fixture(scope="module")
def runners(checkpoint: Callable[[str], Path]) -> dict[str, tuple[Runner, Runner]]:
    """Shared KV heads and a window; norms of each head and experts."""
    made = {}
    for name in ("gqa-tied", "gemma2", "qwen3-moe"):
        made[name] = plain_runner(checkpoint(name)), captured_runner(checkpoint(name))
        capture_all(made[name][1])
    return made


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["gqa-tied", "gemma2", "qwen3-moe"]), st.data())
def test_padded_steps_give_the_same_tokens(
    runners: dict[str, tuple[Runner, Runner]], name: str, data: st.DataObject
) -> None:
    prompts = data.draw(
        st.lists(st.lists(st.integers(5, 127), min_size=1, max_size=40), min_size=1, max_size=ROWS), label="prompts"
    )
    ways = [data.draw(st.integers(0, len(WAYS) - 1)) for _ in prompts]
    some = st.lists(st.sampled_from(range(len(prompts))), min_size=1, unique=True)
    turns = data.draw(st.lists(some, min_size=1, max_size=8), label="turns")
    plain, captured = runners[name]
    replays = captured.replayer.replays
    expected = decode(plain, prompts, ways, turns, told=True)
    for told, items in ((True, True), (False, True), (False, False)):
        found = decode(captured, prompts, ways, turns, told=told, items=items)
        assert found == expected
    assert captured.replayer.replays >= replays + 3 * len(turns)


def test_steps_that_do_not_suit_go_one_by_one(checkpoint: Callable[[str], Path]) -> None:
    plain, captured = plain_runner(checkpoint("gqa-tied")), captured_runner(checkpoint("gqa-tied"))
    capture_all(captured)
    replays = captured.replayer.replays
    tokens = []
    for runner in (plain, captured):
        first = prefill(runner, [[7] * 5, [8] * 9], [0, 0])
        added = RowAdded(2, np.array([9] * 4, "<u4").tobytes(), 4, 0, list(range(40, 48)), WAYS[0])
        work = [RowWork(0, 5, 1, True, []), RowWork(2, 0, 1, False, []), RowWork(1, 9, 1, True, [])]
        tokens.append(runner.step(StepPlan(1, [], [added], list(enumerate(first)), work)).token_ids)
    assert tokens[0] == tokens[1] and captured.replayer.replays == replays


def test_what_is_captured_when(checkpoint: Callable[[str], Path]) -> None:
    replayer = Counting()
    runner = captured_runner(checkpoint("gqa-tied"), replayer=replayer)
    captured, empty = runner.on_device.graphs.captured, StepPlan(0, [], [], [], [])
    runner.step(empty)
    assert not captured, "before Ready"
    prefill(runner, [[5, 6]], [0])
    for step in range(module.STEPS_BEFORE + 2):
        runner.step(StepPlan(1, [], [], [(0, 9)], [RowWork(0, 2 + step, 1, True, [])]))
        assert captured.keys() == ({Shape(1, 4)} if step >= module.STEPS_BEFORE else set()), "missed under load"
    for _ in range(9):
        runner.step(empty)
    assert [shape.rows for shape in captured] == [1, 12, 8, 4, 2], "the biggest first while there is nothing to do"


def test_a_capture_that_fails_is_the_last_one(checkpoint: Callable[[str], Path]) -> None:
    replayer = Counting(most=1)
    runner = captured_runner(checkpoint("gqa-tied"), replayer=replayer)
    turns = [[0, 1]] * 30
    expected = decode(plain_runner(checkpoint("gqa-tied")), [[5, 6], [9]], [0, 1], turns, told=True)
    for _ in range(2):
        found = decode(runner, [[5, 6], [9]], [0, 1], turns, told=True)
        assert found == expected
    assert replayer.captures == 1 and replayer.replays > 20


def test_memory_is_bounded(checkpoint: Callable[[str], Path]) -> None:
    class Heavy(Counting):
        bytes = 1 << 40

    replayer = Heavy()
    runner = captured_runner(checkpoint("gqa-tied"), replayer=replayer)
    capture_all(runner)
    assert replayer.captures == 1, "and no other after the one that went over"


def test_shapes() -> None:
    assert sizes(64) == [1, 2, 4, *range(8, 65, 8)]
    assert sizes(1) == [1] and sizes(6) == [1, 2, 4, 6]
    assert parts_up_to(100) == [4] and parts_up_to(1024) == [4]
    assert parts_up_to(1025) == [4, 16] and parts_up_to(1 << 20) == list(module.PARTS)
    assert Shape(16, 8).serves(Shape(9, 2)) and not Shape(16, 2).serves(Shape(16, 8))
    assert not Shape(256, 8).serves(Shape(8, 8)) and not Shape(4, 8).serves(Shape(8, 8))


def test_ranks_capture_together(group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]) -> None:
    group, path = group_of(2, 1), checkpoint("gqa-tied")
    plain, captured = (group.run(OnRanks(path, captured)) for captured in (False, True))
    assert plain[0] == captured[0] and len(plain[0]) == 5 and plain[1] == captured[1] == []


def test_an_engine_says_the_same_by_captured_steps(checkpoint: Callable[[str], Path]) -> None:
    """Prompts and decoding mixed, rows that come and go, a step ahead, and too few pages for all."""
    draw = np.random.default_rng(5)
    plain, captured = InProcess(plain_runner(checkpoint("gqa-tied"))), captured_runner(checkpoint("gqa-tied"))
    capture_all(captured)
    device = InProcess(captured)
    for pages in (ROWS * PAGES_A_ROW, 14):
        for runner in (plain.runner, captured):
            runner.total_pages = pages
        asks = [
            (
                draw.integers(5, 128, int(draw.integers(1, 40))).tolist(),
                int(draw.integers(1, 30)),
                WAYS[turn % len(WAYS)],
            )
            for turn in range(25)
        ]
        expected = plain.serve(asks, token_budget=48, in_columns=1000)
        for in_columns in (1, 8, 1000):
            assert device.serve(asks, token_budget=48, in_columns=in_columns) == expected
            assert plain.serve(asks, token_budget=48, in_columns=in_columns) == expected
        assert [len(tokens) for tokens in expected] == [most for _, most, _ in asks]
    assert captured.replayer.replays > 40 and device.most_out == 2 and device.preemptions > 0
