"""Who gives way, and what that means for those behind it: corners that random requests meet too seldom."""

from __future__ import annotations

from array import array
from collections import deque

from fake_ranks import PAGE_SIZE, FakeRanks

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.pages import PagePool
from headway.worker.plan import StepResult
from headway.worker.scheduler import Limits, Request, Scheduler


class Engine:
    """A scheduler over checked ranks, of which a test takes plans and results one by one."""

    def __init__(self, pages: int) -> None:
        limits = Limits(
            page_size=PAGE_SIZE, total_pages=pages, max_context_tokens=pages * PAGE_SIZE, max_sequences=4,
            token_budget=64, max_waiting=8, vocab_size=1000, admission_forecast=False,
        )  # fmt: skip
        self.scheduler = Scheduler(limits, PagePool(pages, PAGE_SIZE))
        self.ranks = FakeRanks(pages, limits.vocab_size)
        self.results: deque[StepResult] = deque()

    def submit(self, tokens: list[int], max_new: int) -> Request:
        request = Request(
            session=0, id=tokens[0], tokens=array("I", tokens), prompt_tokens=len(tokens), max_new_tokens=max_new,
            sampling=SamplingParams(), root=root_key("revision"), page_size=PAGE_SIZE,
        )  # fmt: skip
        self.scheduler.submit(request)
        return request

    def plan(self) -> None:
        assert self.scheduler.may_plan
        self.results.append(self.ranks.step(self.scheduler.schedule()))

    def take_result(self) -> None:
        self.scheduler.update(self.results.popleft())

    def step(self) -> None:
        self.plan()
        self.take_result()


def test_of_equals_the_one_gives_way_that_loses_the_least_work_of_its_own() -> None:
    """What it had from the cache is there when it comes back."""
    engine = Engine(pages=14)
    prefix = list(range(5 * PAGE_SIZE))
    engine.submit([*prefix, 1], 1)
    engine.step()
    urgent = [engine.submit(list(range(at, at + 2 * PAGE_SIZE)), 9) for at in (100, 200)]
    computed = engine.submit(list(range(300, 300 + 2 * PAGE_SIZE + 1)), 9)
    found = engine.submit([*prefix, 2], 9)
    engine.step()
    assert found.cached_tokens == len(prefix) and found.computed > computed.computed
    engine.step()
    assert [request.preemptions for request in (*urgent, computed, found)] == [0, 0, 0, 1]


def test_nobody_takes_the_place_of_one_that_gave_way_while_a_plan_was_out() -> None:
    """It can come back only when its last token is known."""
    engine = Engine(pages=6)
    engine.submit(list(range(2 * PAGE_SIZE)), 9)
    victim = engine.submit(list(range(100, 100 + 3 * PAGE_SIZE - 1)), 9)
    engine.plan()
    engine.plan()
    engine.take_result()
    newcomer = engine.submit([200], 1)
    engine.plan()
    assert victim.preemptions == 1 and victim.pending
    assert engine.scheduler.pool.free_pages > 1 and not newcomer.pages
