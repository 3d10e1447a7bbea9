"""The forecast is what a simulation gives, and admission by it neither preempts nor leaves pages unused."""

from __future__ import annotations

from array import array

import hypothesis.strategies as st
import numpy as np
import pytest
from fake_ranks import PAGE_SIZE
from hypothesis import given, settings
from test_admission import Engine

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.pages import PagePool
from headway.worker.scheduler import Request
from headway.worker.scheduler.forecast import Forecast
from headway.worker.scheduler.lengths import PRIOR, WINDOW, OutputLengths

ROOT = root_key("revision")
SHARED = 3


def known_length(length: int) -> OutputLengths:
    """All outputs were `length` long."""
    lengths = OutputLengths()
    for _ in range(WINDOW):
        lengths.add(length)
    return lengths


def request(number: int, prompt: int, output: int, most: int) -> Request:
    made = Request(
        session=0,
        id=number,
        tokens=array("I", [1]) * (prompt + output),
        prompt_tokens=prompt,
        max_new_tokens=most,
        sampling=SamplingParams(),
        root=ROOT,
        page_size=PAGE_SIZE,
    )
    made.urgency = (0, number)
    return made


def simulated_peak(pool: PagePool, requests: list[Request], shared: int, length: int) -> int:
    """Step by step. Shared pages stay."""
    left = [min(length if length > r.output_tokens else 2 * r.output_tokens, r.max_new_tokens) for r in requests]
    left = [max(0, total - r.output_tokens) for total, r in zip(left, requests, strict=True)]
    peak = 0
    for step in range(max(left) + 1):
        alive = [r for r, steps in zip(requests, left, strict=True) if steps >= step]
        peak = max(peak, sum(pool.pages_for(len(r.tokens) + step) - shared for r in alive))
    return peak + shared


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(SHARED * PAGE_SIZE, 60), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=9
    ),
    st.integers(1, 50),
    st.booleans(),
)
def test_the_peak_is_that_of_a_simulation(shapes: list[tuple[int, int, int]], length: int, share: bool) -> None:
    pool = PagePool(1000, PAGE_SIZE)
    requests = [request(at, prompt, output, output + most) for at, (prompt, output, most) in enumerate(shapes)]
    prefix = pool.take(SHARED) if share else []
    for each in requests[:-1]:
        pool.share(prefix)
        each.pages = [*prefix, *pool.take(pool.pages_for(len(each.tokens)) - len(prefix))]
    if len(requests) > 1:
        pool.release(prefix)
    used = pool.used_pages if len(requests) > 1 else 0
    if len(requests) > 1:
        pool.share(prefix)
    peak = Forecast(pool, known_length(length)).peak_with(requests[:-1], requests[-1], prefix, used)
    # A request is taken to fill half of its last page, and what a lone newcomer has found it gives back.
    assert abs(peak - simulated_peak(pool, requests, len(prefix), length)) <= len(requests) / 2 + 0.01


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(0, 300), st.floats(0, 0.999))
def test_lengths_to_come_are_those_of_longer_outputs(recent: list[int], length: int, quantile: float) -> None:
    lengths = OutputLengths()
    for each in recent:
        lengths.add(each)
    (total,) = lengths.totals(np.array([length]), np.array([quantile]))
    longer = sorted(each for each in (*PRIOR, *recent) if each > length)
    assert total == (longer[int(quantile * len(longer))] if longer else 2 * length)


def test_what_is_remembered_is_bounded_and_recent() -> None:
    lengths = known_length(7)
    for _ in range(WINDOW // 2):
        lengths.add(9)
    assert lengths.totals(np.zeros(2, np.int64), np.array([0.49, 0.51])).tolist() == [7, 9]
    assert lengths.totals(np.array([9]), np.array([0.0])).tolist() == [18], "longer than any"


def run(forecast: bool) -> Engine:
    engine = Engine(pages=40, max_sequences=16, token_budget=32, forecast=forecast)
    engine.scheduler._roster.lengths = engine.scheduler._admission._forecast._lengths = known_length(16)
    waiting = [[100 * number + at for at in range(8)] for number in range(30)]
    peak = 0
    while waiting or engine.scheduler.busy:
        while waiting and engine.scheduler.waiting < 4:
            engine.submit(waiting.pop(), 16)
        engine.step()
        peak = max(peak, engine.pool.used_pages)
    assert peak >= 36, "pages are used"
    return engine


def test_outputs_as_long_as_the_last_ones_preempt_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(forecast=True).scheduler.preemptions == 0
    monkeypatch.setattr(Forecast, "_peak", lambda *_: 0.0)
    assert run(forecast=True).scheduler.preemptions > 0, "else this proves nothing"


def test_one_that_outgrows_every_estimate_keeps_nobody_out() -> None:
    engine = Engine(pages=64, max_sequences=4, token_budget=64, forecast=True)
    engine.scheduler._roster.lengths = engine.scheduler._admission._forecast._lengths = known_length(16)
    long = engine.submit(list(range(10)), 246)
    while long.output_tokens < 140:  # twice that is more than there are pages for
        engine.step()
    brief = engine.submit(list(range(100, 104)), 4)
    engine.step()
    assert brief.pages


def test_a_shared_prefix_counts_once() -> None:
    """Each one alone would need 10 of 24 pages; 8 of them are the same ones."""
    engine = Engine(pages=24, max_sequences=8, token_budget=64, forecast=True)
    engine.submit(list(range(33)), 1)
    engine.run()
    together = [engine.submit([*range(32), 50 + at], 7) for at in range(6)]
    engine.step()
    assert all(each.pages for each in together)
    engine.run()
    assert engine.scheduler.preemptions == 0


def test_who_outranks_those_that_run_does_not_wait_for_the_forecast() -> None:
    engine = Engine(pages=16, forecast=True)
    low = engine.submit(list(range(8)), 50, priority=1)
    engine.step()
    equal, urgent = engine.submit(list(range(100, 108)), 40, priority=1), engine.submit(list(range(200, 208)), 40)
    engine.step()
    assert urgent.pages and low.pages and not equal.pages, "pages are free, and not for long"
    engine.run()
    assert urgent.preemptions == 0 < low.preemptions
