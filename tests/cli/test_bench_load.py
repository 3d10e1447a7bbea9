"""The load generator: its requests, its arrivals, and figures that can be checked against known times."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.cli.bench.histogram import Histogram
from headway.cli.bench.load import Sender, closed_loop, open_loop
from headway.cli.bench.runner import BenchReport, Plan, bench
from headway.cli.bench.show import remarks, table
from headway.cli.bench.tally import HOPELESS, Tally
from headway.cli.bench.workload import Lengths, Workload
from headway.client import AsyncHeadway, Overloaded, Retry
from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread, refuse


@given(st.lists(st.floats(1e-6, 3600), min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_right_to_one_percent(seconds: list[float], share: float) -> None:
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    exact = sorted(seconds)[max(math.ceil(share * len(seconds)), 1) - 1] * 1000
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.0101)


def test_a_histogram_does_not_grow_and_takes_what_is_outside() -> None:
    histogram = Histogram()
    assert histogram.summary() is None
    before = len(histogram._counts)
    for value in (0.0, -1.0, 1e9, 5e-8):
        histogram.add(value)
    summary = histogram.summary()
    assert summary is not None and summary.max == 1e12 and len(histogram._counts) == before


def workload(**changes: object) -> Workload:
    given = {
        "vocab_size": 100,
        "input_tokens": Lengths(20, 40),
        "output_tokens": Lengths(5, 9),
        "shared_prefix": 16,
        "seed": 1,
    }
    return Workload(**(given | changes))  # type: ignore[arg-type]


def test_requests_follow_from_seed_run_and_index_alone() -> None:
    again = [workload().request(1, index) for index in reversed(range(50))][::-1]
    requests = [workload().request(1, index) for index in range(50)]
    assert requests == again
    assert {tuple(request.token_ids[:16]) for request in requests} == {tuple(requests[0].token_ids[:16])}
    assert len({tuple(request.token_ids[16:20]) for request in requests}) > 40
    assert {len(request.token_ids) for request in requests} <= set(range(20, 41))
    assert {request.max_new_tokens for request in requests} == set(range(5, 10))
    assert all(0 <= token_id < 100 for request in requests for token_id in request.token_ids)
    assert workload().request(2, 0).token_ids[:16] != requests[0].token_ids[:16]
    assert workload(seed=2).request(1, 0) != requests[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared_prefix": 20}, "below the shortest input, 20"),
        ({"input_tokens": Lengths(20, 60)}, "come to 69 tokens, and the model's context is 64"),
        ({"vocab_size": 0}, "vocabulary"),
    ],
)
def test_a_workload_that_cannot_be_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        workload(**changes).check(64)
    workload().check(64)


@pytest.mark.parametrize("text", ["", "0", "a", "9-3", "1-", "-4", "1.5"])
def test_lengths_that_cannot_be_read(text: str) -> None:
    if text == "1-":
        assert Lengths.parse(text) == Lengths(1, 1)
        return
    with pytest.raises(ValueError, match="must be"):
        Lengths.parse(text)


async def test_a_closed_loop_keeps_its_callers_busy_and_sends_each_request_once() -> None:
    sent: Counter[int] = Counter()
    running = peak = 0

    async def send(index: int, due: float) -> None:
        nonlocal running, peak
        sent[index] += 1
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.001)
        running -= 1

    await closed_loop(send, 50, 7)
    assert sent == Counter(range(50)) and peak == 7


async def test_arrivals_are_seeded_poisson_and_wait_for_nobody() -> None:
    async def arrivals(seed: int) -> list[float]:
        began, dues = time.perf_counter(), {}
        release = asyncio.Event()

        async def send(index: int, due: float) -> None:
            dues[index] = due - began
            if len(dues) == 400:
                release.set()
            await release.wait()

        await open_loop(send, 400, 2000.0, seed)
        return [dues[index] for index in range(400)]

    first, again, other = await arrivals(1), await arrivals(1), await arrivals(2)
    gaps, same = ([b - a for a, b in itertools.pairwise(run)] for run in (first, again))
    assert gaps == pytest.approx(same, abs=1e-9)
    assert [b - a for a, b in itertools.pairwise(other)] != pytest.approx(gaps, abs=1e-9)
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    # An exponential's deviation is its mean. Drawn by seed, so this cannot fail by chance.
    assert mean == pytest.approx(1 / 2000, rel=0.15) and deviation == pytest.approx(mean, rel=0.2)


async def run_bench(
    server: ServerThread,
    *,
    concurrency: Sequence[int] = (),
    rates: Sequence[float] = (),
    warmup: int = 0,
) -> BenchReport:
    plan = Plan(concurrency=list(concurrency), rates=list(rates), requests=12, warmup=warmup, timeout_s=20.0)
    ended: list[str] = []

    def progress(name: str, requests: int, tally: Tally, end: bool) -> None:
        if end:
            ended.append(name)

    async with AsyncHeadway(server.address) as headway:
        model = await headway.model()
    report = await bench(server.address, model, workload(), plan, progress)
    assert len(ended) == len(report.runs) + (1 if warmup else 0)
    return report


async def test_a_bench_counts_what_was_asked_and_answered(server: ServerThread, servicer: ScriptedInference) -> None:
    report = await run_bench(server, concurrency=[1, 4], warmup=3)
    first, second = report.runs
    assert len(servicer.requests) == 3 + 12 + 12
    for run, asked in ((first, servicer.requests[3:15]), (second, servicer.requests[15:])):
        assert (run.requests, run.completed, run.errors) == (12, 12, {})
        assert run.prompt_tokens == sum(len(request.prompt.token_ids.ids) for request in asked)
        assert run.output_tokens == sum(request.stopping.max_new_tokens for request in asked)
        assert run.output_tokens_per_s == pytest.approx(run.output_tokens / run.duration_s)
        assert run.ttft_ms and run.e2e_ms and run.ttft_ms.p50 <= run.e2e_ms.p50 and run.tpot_ms
    assert first.peak_in_flight == 1 and 1 < second.peak_in_flight <= 4
    assert first.cached_share == pytest.approx(first.cached_tokens / first.prompt_tokens)
    assert all(request.stopping.ignore_eos and request.cache.salt for request in servicer.requests)
    assert len({request.cache.salt for request in servicer.requests}) == 1
    table(report)


async def test_refusals_are_figures_and_are_not_retried(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Overloaded("full", retry_after_s=0.01)) for _ in range(5)]
    report = await run_bench(server, rates=[200.0])
    (run,) = report.runs
    assert (run.requests, run.completed, run.errors) == (12, 7, {"OVERLOADED": 5})
    assert len(servicer.requests) == 12
    assert any("5 requests failed with OVERLOADED" in remark for remark in remarks(report))


async def test_a_run_against_a_cluster_that_is_gone_ends(server: ServerThread, servicer: ScriptedInference) -> None:
    async with AsyncHeadway("127.0.0.1:1", retry=Retry(attempts=1)) as headway:
        sender = Sender(headway, workload(), 1, "scripted", "salt")
        await closed_loop(sender, 10**6, 8)
    report = sender.tally.report("closed", 8, None)
    assert report.gave_up and HOPELESS <= report.requests < HOPELESS + 8 and report.completed == 0


async def test_open_loop_latency_counts_from_when_a_request_was_due(
    server: ServerThread, servicer: ScriptedInference
) -> None:
    tally = Tally()
    tally.start(time.perf_counter() - 2.0)
    assert tally.lag.quantile(1.0) >= 2000
    report = await run_bench(server, rates=[500.0])
    (run,) = report.runs
    assert (run.mode, run.rate, run.concurrency) == ("open", 500.0, None) and 0 < run.arrivals_s <= run.duration_s
