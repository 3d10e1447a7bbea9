"""Requests that a grammar holds: whatever the grammars' pace, tokens stay the same, nobody else waits, and all end."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection

import hypothesis.strategies as st
from fake_ranks import PAGE_SIZE, FakeRanks
from hypothesis import given, settings
from msgspec import structs

from headway.core.blocks import root_key
from headway.core.errors import HeadwayError, InvalidRequest
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Outcome, Request, Scheduler

PAGES = 10
LIMITS = Limits(
    page_size=PAGE_SIZE,
    total_pages=PAGES,
    max_context_tokens=PAGES * PAGE_SIZE,
    max_sequences=4,
    token_budget=9,
    max_waiting=20,
    vocab_size=1000,
)


class PacedGuide:
    """Its mask is the number of tokens pushed. `paces` says for how many rounds of the crew each one is not ready."""

    def __init__(self, paces: list[int], over_at: int, fails_at: int) -> None:
        self.paces, self.over_at, self.fails_at = paces, over_at, fails_at
        self.tokens: list[int] = []
        self.left = 0
        self.error: HeadwayError | None = None

    @property
    def ready(self) -> bool:
        return self.left == 0

    @property
    def over(self) -> bool:
        return len(self.tokens) == self.over_at

    @property
    def mask(self) -> bytes:
        assert self.ready and not self.over
        return bytes([len(self.tokens)])

    def push(self, token: int) -> None:
        assert self.ready
        self.tokens.append(token)
        self.left = 1 + self.paces[len(self.tokens) % len(self.paces)]
        if len(self.tokens) == self.fails_at:
            self.error = InvalidRequest("grammar.regex: it fails", field="grammar.regex")


class PacedCrew:
    """Each wait is a round."""

    def __init__(self) -> None:
        self.at_work: list[PacedGuide] = []

    def advance(self, guides: Collection[PacedGuide]) -> None:
        self.at_work += guides

    def wait(self, guides: Collection[PacedGuide], timeout_s: float) -> None:
        for guide in self.at_work:
            guide.left -= 1
        self.at_work = [guide for guide in self.at_work if guide.left]


class CheckedRanks(FakeRanks):
    """Sees that every sampled row of a guided request has the mask of its place, and no other row has one."""

    def __init__(self, guided: dict[bytes, Request]) -> None:
        super().__init__(PAGES, LIMITS.vocab_size)
        self.guided = guided

    def step(self, plan: StepPlan) -> StepResult:
        masks = dict(plan.masks)
        result = super().step(plan)
        for work in plan.work:
            request = self.guided[self.rows[work.row].salt]
            if work.sample and request.guide is not None:
                assert masks.pop(work.row) == bytes([request.output_tokens])
        assert not masks
        return result


def submit(scheduler: Scheduler, at: int, length: int, max_new: int, guide: PacedGuide | None) -> Request:
    request = Request(
        session=0,
        id=at,
        tokens=array("I", [(100 * at + i) % LIMITS.vocab_size for i in range(length)]),
        prompt_tokens=length,
        max_new_tokens=max_new,
        sampling=SamplingParams(seed=at),
        root=root_key("revision", tenant_salt=str(at)),
        page_size=PAGE_SIZE,
    )
    request.guide = guide
    scheduler.submit(request)
    return request


def run(
    requests: list[tuple[int, int, PacedGuide | None]], stages: int = 1, ahead: bool = False
) -> tuple[list[Outcome], list[list[int]], int]:
    """Last outcome and tokens of each request, and the results that it took. With `ahead` plans go out as long as they
    may before a result is taken."""
    limits = structs.replace(LIMITS, stages=stages)
    scheduler = Scheduler(limits, PagePool(PAGES, PAGE_SIZE), PacedCrew(), in_columns=1)
    guided: dict[bytes, Request] = {}
    ranks = CheckedRanks(guided)
    live = []
    for at, (length, max_new, guide) in enumerate(requests):
        live.append(submit(scheduler, at, length, max_new, guide))
        guided[at.to_bytes(8, "little")] = live[-1]
    ends: dict[Request, Outcome] = {}
    tokens: dict[Request, list[int]] = {request: [] for request in live}
    results: deque[StepResult] = deque()
    steps = 0
    while scheduler.busy:
        steps += 1
        assert steps < 3000, "requests do not end"
        while scheduler.may_plan and (ahead or not results):
            results.append(ranks.step(scheduler.schedule()))
        update = scheduler.update(results.popleft())
        for at, token in zip(update.advanced.ids.tolist(), update.advanced.tokens.tolist(), strict=True):
            assert live[at].guide is None
            tokens[live[at]].append(token)
        for outcome in (*update.outcomes, *scheduler.settle()):
            assert outcome.request not in ends
            tokens[outcome.request] += outcome.token_ids
            if outcome.ended:
                ends[outcome.request] = outcome
    assert scheduler.pool.used_pages == 0 and scheduler.uncached_tokens == 0
    return [ends[request] for request in live], [tokens[request] for request in live], steps


guides = st.none() | st.builds(
    PacedGuide, st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 20), st.integers(1, 30)
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 16), guides), min_size=1, max_size=7),
    st.integers(1, 3),
    st.booleans(),
)
def test_the_pace_of_grammars_changes_no_tokens(
    requests: list[tuple[int, int, PacedGuide | None]], stages: int, ahead: bool
) -> None:
    ends, tokens, _ = run(requests, stages, ahead)
    _, free, _ = run([(length, max_new, None) for length, max_new, _ in requests])
    for (_, max_new, guide), end, got, whole in zip(requests, ends, tokens, free, strict=True):
        assert got == whole[: len(got)]
        cut = min(guide.over_at, guide.fails_at, max_new) if guide else max_new
        assert len(got) == cut
        if guide is None or cut == max_new:
            assert end.finish == FINISH_REASON_LENGTH
        elif cut == guide.fails_at:
            assert end.error is guide.error
        else:
            assert end.finish == FINISH_REASON_STOP


def test_a_slow_grammar_costs_its_neighbours_no_step() -> None:
    slow = PacedGuide([6], 99, 99)
    _, _, steps = run([(4, 12, None), (4, 12, None)])
    _, tokens, together = run([(4, 12, None), (4, 12, None), (4, 2, slow)])
    assert together == steps and [len(got) for got in tokens] == [12, 12, 2]


def test_a_request_that_is_aborted_while_its_grammar_works_is_heard_of_no_more() -> None:
    """Whatever comes of the grammar after that."""
    scheduler = Scheduler(LIMITS, PagePool(PAGES, PAGE_SIZE), PacedCrew())
    guides = [PacedGuide([3], over_at, fails_at) for over_at, fails_at in ((99, 99), (1, 99), (99, 1))]
    requests = [submit(scheduler, at, 3, 9, guide) for at, guide in enumerate(guides)]
    ranks = CheckedRanks({at.to_bytes(8, "little"): request for at, request in enumerate(requests)})
    scheduler.update(ranks.step(scheduler.schedule()))
    for request in requests[:2]:
        scheduler.abort(request)
    assert [outcome.request for outcome in scheduler.settle()] == requests[2:]
    late = submit(scheduler, 3, 3, 9, PacedGuide([3], 1, 99))
    ranks.guided[(3).to_bytes(8, "little")] = late
    scheduler.update(ranks.step(scheduler.schedule()))
    assert scheduler.settle() == [] and late.sits_out
    scheduler.abort(late)
    for _ in range(9):
        scheduler.update(ranks.step(scheduler.schedule()))
        assert scheduler.settle() == []
    assert not scheduler.busy and scheduler.pool.used_pages == 0
