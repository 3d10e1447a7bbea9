"""Corners of admission that random requests meet too seldom."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable

import msgspec
import pytest
from fake_ranks import PAGE_SIZE, FakeRanks, next_token, prefix_digest

from headway.core.blocks import root_key
from headway.core.errors import ContextTooLong, Overloaded
from headway.core.sampling import SamplingParams
from headway.kernels.linear_w8a8 import input_splits, row_block
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_CONTEXT, FINISH_REASON_LENGTH
from headway.worker.engine.warm_up import warm_up
from headway.worker.pages import PagePool
from headway.worker.plan import NONE_ALLOWED, NOT_A_NUMBER, StepPlan, StepResult
from headway.worker.scheduler import Limits, Outcome, Request, Scheduler

VOCABULARY = 1000
ROOT = root_key("revision")


class Engine:
    """A scheduler over checked ranks."""

    def __init__(self, pages: int, max_sequences: int = 4, token_budget: int = 16, forecast: bool = False) -> None:
        self.limits = Limits(
            page_size=PAGE_SIZE,
            total_pages=pages,
            max_context_tokens=pages * PAGE_SIZE,
            max_sequences=max_sequences,
            token_budget=token_budget,
            max_waiting=8,
            vocab_size=VOCABULARY,
            admission_forecast=forecast,
        )
        self.pool = PagePool(pages, PAGE_SIZE)
        self.scheduler = Scheduler(self.limits, self.pool)
        self.ranks = FakeRanks(pages, VOCABULARY)
        self.ids = 0

    def submit(
        self,
        tokens: list[int],
        max_new: int,
        forged: Request | None = None,
        priority: int = 0,
        scored: bool = False,
        delivered: int = 0,
        bypass: bool = False,
    ) -> Request:
        """`forged` has a first page of the same key; the last `delivered` tokens are another replica's output."""
        self.ids += 1
        request = Request(
            session=0,
            id=self.ids,
            tokens=array("I", tokens),
            prompt_tokens=len(tokens) - delivered,
            max_new_tokens=max_new,
            cache_bypass=bypass,
            sampling=SamplingParams(),
            prompt_logprobs=0 if scored else -1,
            priority=priority,
            root=ROOT,
            page_size=PAGE_SIZE,
        )
        if forged is not None:
            request.keys[:] = forged.keys[:1]
            for page in range(1, len(tokens) // PAGE_SIZE):
                request.key(page, PAGE_SIZE)
        self.scheduler.submit(request)
        return request

    def step(self) -> int:
        """One step; how many tokens it computed."""
        plan = self.scheduler.schedule()
        self.scheduler.update(self.ranks.step(plan))
        return plan.total_tokens

    def run(self) -> dict[Request, Outcome]:
        """Steps until nothing is left; the last outcome of each request."""
        ends = {}
        for _ in range(1000):
            if not self.scheduler.busy:
                return ends
            for outcome in self.scheduler.update(self.ranks.step(self.scheduler.schedule())).outcomes:
                if outcome.finish:
                    ends[outcome.request] = outcome
        raise AssertionError("requests do not end")


def expected(tokens: list[int], count: int) -> list[int]:
    known = list(tokens)
    for _ in range(count):
        known.append(next_token(prefix_digest((0).to_bytes(8, "little"), known)[-1], VOCABULARY))
    return known


@pytest.mark.parametrize("length", [PAGE_SIZE, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 1])
def test_a_prompt_whose_pages_are_all_cached_still_computes_its_last_token(length: int) -> None:
    engine = Engine(pages=8)
    prompt = list(range(length))
    first = engine.submit(prompt, 3)
    engine.run()
    second = engine.submit(prompt, 3)
    engine.run()
    assert list(first.tokens) == list(second.tokens) == expected(prompt, 3)
    assert (first.cached_tokens, second.cached_tokens) == (0, (length - 1) // PAGE_SIZE * PAGE_SIZE)


def test_a_page_is_offered_only_when_all_of_it_is_computed() -> None:
    engine = Engine(pages=8, token_budget=2 * PAGE_SIZE - 1)
    prompt = list(range(3 * PAGE_SIZE))
    gone = engine.submit(prompt, 1)
    engine.scheduler.update(engine.ranks.step(engine.scheduler.schedule()))
    engine.scheduler.abort(gone)
    request = engine.submit(prompt, 1)
    engine.run()
    assert request.cached_tokens == PAGE_SIZE and list(request.tokens) == expected(prompt, 1)


def test_the_whole_pool_serves_one_request_and_the_others_wait_their_turn() -> None:
    engine = Engine(pages=4)
    prompts = [[100 * n + at for at in range(PAGE_SIZE + n)] for n in range(4)]
    room = [engine.limits.max_context_tokens - len(prompt) for prompt in prompts]
    requests = [engine.submit(prompt, count) for prompt, count in zip(prompts, room, strict=True)]
    ends = engine.run()
    assert list(ends) == requests, "nobody overtakes"
    for request, prompt, count in zip(requests, prompts, room, strict=True):
        assert list(request.tokens) == expected(prompt, count)
        assert ends[request].finish == FINISH_REASON_CONTEXT
    assert engine.pool.used_pages == 0
    with pytest.raises(ContextTooLong):
        engine.submit(prompts[0], room[0] + 1)


def test_a_newcomer_does_not_take_the_pages_that_a_running_prompt_still_needs() -> None:
    engine = Engine(pages=8, token_budget=8)
    long = engine.submit(list(range(6 * PAGE_SIZE)), 1)
    engine.scheduler.update(engine.ranks.step(engine.scheduler.schedule()))
    assert 0 < len(long.pages) < 6, "in the middle of its prompt"
    assert engine.scheduler.uncached_tokens == long.remaining == 6 * PAGE_SIZE - 8
    late = [engine.submit(list(range(start, start + 2 * PAGE_SIZE)), 1) for start in (500, 600, 700)]
    ends = engine.run()
    assert list(ends) == [long, *late] and engine.scheduler.preemptions == 0


def test_a_preempted_request_goes_before_those_that_waited_behind_it() -> None:
    engine = Engine(pages=8, max_sequences=2)
    prompts = [[100 * n + at for at in range(10)] for n in range(4)]
    requests = [engine.submit(prompt, 14) for prompt in prompts]
    ends = engine.run()
    assert requests[1].preemptions > 0 and list(ends) == requests
    assert [list(request.tokens) for request in requests] == [expected(prompt, 14) for prompt in prompts]


def test_one_row_one_token_a_step_and_a_prompt_far_above_the_budget() -> None:
    engine = Engine(pages=8, max_sequences=1, token_budget=1)
    prompts = [list(range(at, at + 13)) for at in (0, 50)]
    requests = [engine.submit(prompt, 5) for prompt in prompts]
    ends = engine.run()
    assert [list(request.tokens) for request in requests] == [expected(prompt, 5) for prompt in prompts]
    assert {outcome.finish for outcome in ends.values()} == {FINISH_REASON_LENGTH}


@pytest.mark.parametrize(("verdict", "code"), [(NOT_A_NUMBER, "INTERNAL"), (NONE_ALLOWED, "INVALID_ARGUMENT")])
def test_a_row_without_a_token_ends_alone(verdict: int, code: str) -> None:
    """Pages whose logits were no numbers are not offered to others."""
    engine = Engine(pages=16, token_budget=32)
    bad, good = engine.submit(list(range(9)), 3), engine.submit(list(range(100, 109)), 3)
    result = engine.ranks.step(engine.scheduler.schedule())
    result = msgspec.structs.replace(result, token_ids=[verdict, result.token_ids[1]])
    first, _ = engine.scheduler.update(result).outcomes
    assert first.request is bad and first.error is not None and first.error.code.name == code and first.token_ids == []
    assert not bad.pages and engine.pool.has(bad.keys[0]) == (verdict == NONE_ALLOWED)
    assert list(engine.run()) == [good] and list(good.tokens) == expected(list(range(100, 109)), 3)
    assert engine.pool.used_pages == 0


def test_two_prefixes_of_one_key_are_never_taken_for_each_other() -> None:
    """Neither may the pages that are chained to the second one stand for pages chained to the first."""
    engine = Engine(pages=16)
    one, other, tail = [[start + at for at in range(PAGE_SIZE)] for start in (10, 20, 30)]
    first = engine.submit([*one, 1], 2)
    engine.run()
    collides = engine.submit([*other, *tail, 1], 2, forged=first)
    engine.run()
    long = engine.submit([*one, *tail, 1], 2)
    engine.run()
    assert long.keys == collides.keys[:2] and long.cached_tokens == PAGE_SIZE
    assert list(collides.tokens) == expected([*other, *tail, 1], 2)
    assert list(long.tokens) == expected([*one, *tail, 1], 2)
    again = engine.submit([*one, *tail, 2], 2)
    engine.run()
    assert again.cached_tokens == 2 * PAGE_SIZE


def test_of_what_was_delivered_elsewhere_nothing_counts_as_a_cached_prompt() -> None:
    engine = Engine(pages=16)
    engine.submit(list(range(3 * PAGE_SIZE)), 1)
    engine.run()
    request = engine.submit(list(range(3 * PAGE_SIZE)), PAGE_SIZE + 2, delivered=PAGE_SIZE + 1)
    engine.step()
    assert request.cached_tokens == engine.scheduler.cached_tokens == 2 * PAGE_SIZE - 1


def test_a_newcomer_leaves_a_page_to_those_that_run() -> None:
    """Else the next page that one of them needs would send it away at once, its work for nothing."""
    engine = Engine(pages=4)
    first = engine.submit(list(range(PAGE_SIZE - 1)), 2 * PAGE_SIZE)
    engine.step()
    newcomer = engine.submit(list(range(100, 100 + 3 * PAGE_SIZE)), 1)
    fits = engine.submit(list(range(200, 200 + PAGE_SIZE)), 1)
    engine.step()
    assert newcomer.pages == fits.pages == [], "it would take the last page"
    ends = engine.run()
    assert list(ends) == [first, newcomer, fits] and newcomer.preemptions == 0


def test_pages_computed_twice_are_offered_behind_those_that_came_first() -> None:
    """What bypasses the cache computes again what is there. Its own pages of that stay out, and those behind them do
    not: equal keys stand for equal content, whoever computed it."""
    engine = Engine(pages=16)
    prompt = list(range(4 * PAGE_SIZE + 1))
    engine.submit(prompt[: PAGE_SIZE + 1], 1)
    engine.run()
    again = engine.submit(prompt, 1, bypass=True)
    engine.run()
    assert again.cached_tokens == 0
    reader = engine.submit(prompt, 1)
    engine.run()
    assert reader.cached_tokens == 4 * PAGE_SIZE and list(reader.tokens) == expected(prompt, 1)
    assert engine.pool.cached_pages == 4, "one of each"


def warmed_up(engine: Engine) -> list[StepPlan]:
    """The plans that warming up sends."""
    plans: list[StepPlan] = []
    results: deque[StepResult] = deque()

    def send(plan: StepPlan) -> None:
        plans.append(plan)
        results.append(engine.ranks.step(plan))

    warm_up(engine.scheduler, send, results.popleft)
    return plans


def test_warming_up_takes_products_of_all_sizes() -> None:
    """Each in blocks of its own, for which a device compiles a kernel of its own."""
    engine = Engine(pages=64, max_sequences=8, token_budget=256)
    plans = warmed_up(engine)

    def kinds(sizes: Iterable[int]) -> set[tuple[int, int]]:
        return {(row_block(size), input_splits(size, 4096, 4096)) for size in sizes}

    assert kinds(plan.total_tokens for plan in plans if plan.work) == kinds(range(1, 257))


def test_an_older_request_takes_nothing_from_a_younger_one_of_its_priority() -> None:
    """It let the younger one pass while it waited for a prefix."""
    engine = Engine(pages=5, token_budget=6)
    first = engine.submit(list(range(9)), 3)
    older = engine.submit(list(range(9)), 3)
    younger = engine.submit(list(range(100, 104)), 1)
    engine.step()
    engine.step()
    assert first.pages and younger.pages and not older.pages
    engine.run()
    assert engine.scheduler.preemptions == 0 and older.cached_tokens == 2 * PAGE_SIZE
    assert list(older.tokens) == expected(list(range(9)), 3)


@pytest.mark.parametrize(("pages", "rows", "budget"), [(16, 4, 16), (1, 1, 1), (2, 2, 100)])
def test_warming_up_leaves_nothing_behind(pages: int, rows: int, budget: int) -> None:
    engine = Engine(pages, rows, budget)
    plans = warmed_up(engine)
    counts = {work.count for plan in plans for work in plan.work}
    assert {1, min(budget, pages * PAGE_SIZE - 2)} <= counts
    assert max(len(plan.work) for plan in plans) == min(rows, 4, pages - 1 or 1)
    scheduler, pool = engine.scheduler, engine.pool
    assert not scheduler.busy and pool.free_pages == pages and not pool.cached_pages and not pool.events.drain()
    assert scheduler.uncached_tokens == scheduler.cached_tokens == scheduler.preemptions == 0
    request = engine.submit([0] * (PAGE_SIZE - 2), 2)
    engine.run()
    assert list(request.tokens) == expected([0] * (PAGE_SIZE - 2), 2) and request.cached_tokens == 0


def test_stages_share_rows_out_while_the_queue_is_held_up() -> None:
    """Two plans out take half of what runs each, whoever waits for pages."""
    pool = PagePool(16, PAGE_SIZE)
    limits = Limits(
        page_size=PAGE_SIZE, total_pages=16, max_context_tokens=64, max_sequences=32, token_budget=64, max_waiting=64,
        vocab_size=50, stages=2, admission_forecast=False,
    )  # fmt: skip
    scheduler = Scheduler(limits, pool)
    for number in range(40):
        prompt = array("I", [number] * 6)
        scheduler.submit(
            Request(
                session=0,
                id=number,
                tokens=prompt,
                prompt_tokens=6,
                max_new_tokens=6,
                sampling=SamplingParams(),
                root=root_key("tests"),
                page_size=PAGE_SIZE,
            )
        )
    out: deque[StepPlan] = deque()
    shared = []
    for _ in range(6):
        while scheduler.may_plan:
            out.append(scheduler.schedule())
        shared.append([len(plan.work) for plan in out])
        plan = out.popleft()
        scheduler.update(StepResult(plan.step, [1] * sum(work.sample for work in plan.work)))
    assert all(len(plans) == 2 and max(plans) - min(plans) <= 2 for plans in shared[3:]), shared


def test_a_long_prompt_leaves_a_row_to_those_that_decode() -> None:
    limits = Limits(
        page_size=PAGE_SIZE, total_pages=256, max_context_tokens=1024, max_sequences=4, token_budget=8, max_waiting=4,
        vocab_size=50, stages=2,
    )  # fmt: skip
    scheduler = Scheduler(limits, PagePool(256, PAGE_SIZE))

    def request(id: int, tokens: int, priority: int) -> Request:
        return Request(
            session=0, id=id, tokens=array("I", [id] * tokens), prompt_tokens=tokens, max_new_tokens=100,
            sampling=SamplingParams(), root=root_key("tests"), page_size=PAGE_SIZE, priority=priority,
        )  # fmt: skip

    decodes, prompt = request(1, 2, 0), request(2, 400, -1)
    scheduler.submit(decodes)
    plan = scheduler.schedule()
    scheduler.update(StepResult(plan.step, [1]))
    scheduler.submit(prompt)
    out: deque[StepPlan] = deque()
    for _ in range(20):
        while scheduler.may_plan:
            out.append(scheduler.schedule())
        plan = out.popleft()
        scheduler.update(StepResult(plan.step, [1] * sum(work.sample for work in plan.work)))
    assert decodes.output_tokens > 8 and prompt.computed >= 64


def test_the_queue_is_bounded_by_max_waiting_and_the_rows_that_are_free() -> None:
    engine = Engine(pages=64)
    rows, room = engine.limits.max_sequences, engine.limits.max_waiting
    for number in range(rows + room):
        engine.submit([number, 1], 9)
    with pytest.raises(Overloaded):
        engine.submit([999, 1], 9)
    engine.step()
    assert engine.scheduler.running == rows and engine.scheduler.waiting == room
    with pytest.raises(Overloaded):
        engine.submit([999, 1], 9)


def test_who_was_held_up_enters_as_soon_as_anyone_has_left() -> None:
    """Not only when the batch has run empty."""
    engine = Engine(pages=8)
    long = engine.submit(list(range(PAGE_SIZE)), 4 * PAGE_SIZE)
    short = engine.submit(list(range(100, 100 + 3 * PAGE_SIZE)), 2)
    held_up = engine.submit(list(range(200, 200 + 3 * PAGE_SIZE)), 2)
    engine.step()
    assert long.pages and short.pages and not held_up.pages
    while short.pages:
        engine.step()
    engine.step()
    assert held_up.pages and long.pages, "it joins those that go on"
    engine.run()
    assert engine.scheduler.preemptions == 0


def test_a_request_that_ends_by_its_length_has_no_step_planned_beyond_it() -> None:
    """Also while plans are out: only an end that nobody could foresee costs a row of one step."""
    engine = Engine(pages=16)
    requests = [engine.submit([number, 1, 2], 5) for number in range(3)]
    results: deque[StepResult] = deque()
    planned = 0
    while engine.scheduler.busy:
        while engine.scheduler.may_plan:
            plan = engine.scheduler.schedule()
            planned += plan.total_tokens
            results.append(engine.ranks.step(plan))
        engine.scheduler.update(results.popleft())
    assert planned == sum(len(request.tokens) - 1 for request in requests)


def test_what_a_plan_computed_before_its_row_gave_way_does_not_count_after_it_is_back() -> None:
    limits = msgspec.structs.replace(Engine(pages=16, max_sequences=1, token_budget=8).limits, stages=3)
    scheduler, ranks = Scheduler(limits, PagePool(16, PAGE_SIZE)), FakeRanks(16, VOCABULARY)

    def request(tokens: list[int], priority: int) -> Request:
        return Request(
            session=0, id=tokens[0], tokens=array("I", tokens), prompt_tokens=len(tokens), max_new_tokens=3,
            sampling=SamplingParams(), root=ROOT, page_size=PAGE_SIZE, priority=priority,
        )  # fmt: skip

    prompt = list(range(5 * PAGE_SIZE))
    victim, urgent = request(prompt, 0), request([500, 501], -1)
    results: deque[StepResult] = deque()
    scheduler.submit(victim)
    results.append(ranks.step(scheduler.schedule()))
    scheduler.submit(urgent)
    results.append(ranks.step(scheduler.schedule()))
    assert victim.preemptions == 1 and urgent.pages
    scheduler.abort(urgent)
    results.append(ranks.step(scheduler.schedule()))
    assert victim.pages and victim.planned == 8
    scheduler.update(results.popleft())
    assert victim.computed == 0, "that was for its stay before"
    while scheduler.busy:
        while results:
            scheduler.update(results.popleft())
        if scheduler.busy:
            results.append(ranks.step(scheduler.schedule()))
    assert list(victim.tokens) == expected(prompt, 3) and scheduler.pool.used_pages == 0
