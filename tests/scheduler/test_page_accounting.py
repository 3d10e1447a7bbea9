"""Over thousands of random submits, aborts, steps and preemptions: no page leaks or is shared wrongly, every request
ends exactly once with the tokens that the model gives it alone, the KV events replay to the index, and whoever is most
urgent goes on, whatever priorities and shared prefixes make others wait for."""

from __future__ import annotations

from array import array
from collections import deque

import hypothesis.strategies as st
from fake_ranks import PAGE_SIZE, FakeRanks, decoding_rows, embedding_of, next_token, prefix_digest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from headway.core.blocks import BlockKey, root_key
from headway.core.errors import Overloaded
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_EMBEDDED, FINISH_REASON_UNSPECIFIED
from headway.worker.pages import KvOp, PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Advanced, Limits, Outcome, Request, Scheduler

TOTAL_PAGES = 12
VOCABULARY = 50
LIMITS = Limits(
    page_size=PAGE_SIZE,
    total_pages=TOTAL_PAGES,
    max_context_tokens=TOTAL_PAGES * PAGE_SIZE,
    max_sequences=4,
    token_budget=9,
    max_waiting=5,
    vocab_size=VOCABULARY,
    aging_steps=5,
)
EOS = 7


def expected_output(tokens: list[int], salt: bytes, max_new: int) -> list[int]:
    """What the request must get whatever else runs."""
    known, output = list(tokens), []
    while len(output) < max_new:
        token = next_token(prefix_digest(salt, known)[-1], VOCABULARY)
        known.append(token)
        output.append(token)
        if token == EOS or len(known) == LIMITS.max_context_tokens:
            break
    return output


def worked_rows(plan: StepPlan) -> list[int]:
    return [*(work.row for work in plan.work), *decoding_rows(plan)]


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.results: deque[StepResult] = deque()
        self.live: list[Request] = []
        self.wanted: dict[Request, list[int]] = {}
        self.got: dict[Request, list[int]] = {}
        self.embeddings: dict[Request, bytes] = {}
        self.scored: dict[Request, bool] = {}
        self.replayed: set[BlockKey] = set()
        self.ids = 0

    @initialize(
        forecast=st.booleans(),
        stages=st.just(1),
        in_columns=st.sampled_from([1, 1, 2, 3, 100]),
        budget=st.sampled_from([3, 9]),
    )
    def begin(self, forecast: bool, stages: int, in_columns: int, budget: int) -> None:
        self.pool = PagePool(TOTAL_PAGES, PAGE_SIZE)
        limits = structs.replace(LIMITS, admission_forecast=forecast, stages=stages, token_budget=budget)
        self.scheduler = Scheduler(limits, self.pool, in_columns=in_columns)
        self.ranks = FakeRanks(TOTAL_PAGES, VOCABULARY)

    @rule(
        family=st.integers(0, 2),
        length=st.sampled_from([1, 3, 7, 9, 11, 15, 22, 30]),
        tail=st.integers(0, 1),
        max_new=st.integers(1, 18),
        root=st.integers(0, 1),
        bypass=st.sampled_from([False, False, True]),
        pooling=st.sampled_from([0, 0, 0, POOLING_LAST, POOLING_MEAN]),
        priority=st.sampled_from([0, 0, 0, -3, -1, 1, 1000]),
        scored=st.booleans(),
    )
    def submit(
        self,
        family: int,
        length: int,
        tail: int,
        max_new: int,
        root: int,
        bypass: bool,
        pooling: int,
        priority: int,
        scored: bool,
    ) -> None:
        scored = scored and not pooling
        tokens = [(family * 11 + at) % VOCABULARY for at in range(length)] + [40 + tail]
        salt = root.to_bytes(8, "little")
        self.ids += 1
        request = Request(
            session=0,
            id=self.ids,
            tokens=array("I", tokens),
            prompt_tokens=len(tokens),
            max_new_tokens=0 if pooling else min(max_new, LIMITS.max_context_tokens - len(tokens)),
            sampling=SamplingParams(seed=root),
            root=root_key("revision", tenant_salt=str(root)),
            page_size=PAGE_SIZE,
            eos_token_ids=[EOS],
            cache_bypass=bypass or pooling == POOLING_MEAN,
            pooling=pooling,
            priority=priority,
            prompt_logprobs=0 if scored else -1,
        )
        try:
            self.scheduler.submit(request)
        except Overloaded:
            free_rows = LIMITS.max_sequences - self.scheduler.running
            assert self.scheduler.waiting >= LIMITS.max_waiting + free_rows
            return
        assert self.scheduler.running + self.scheduler.waiting <= LIMITS.max_waiting + LIMITS.max_sequences
        self.live.append(request)
        self.wanted[request] = expected_output(tokens, salt, request.max_new_tokens)
        self.got[request] = []
        self.embeddings[request] = embedding_of(prefix_digest(salt, tokens), pooling) if pooling else b""
        self.scored[request] = scored

    @rule(which=st.integers(0, 100))
    def abort(self, which: int) -> None:
        if self.live:
            request = self.live.pop(which % len(self.live))
            self.scheduler.abort(request)
            assert not request.pages, "at once"
            assert self.got[request] == self.wanted[request][: len(self.got[request])]

    @rule()
    def clear(self) -> None:
        self.pool.clear()

    @rule(steps=st.integers(1, 6), ahead=st.booleans())
    def step(self, steps: int, ahead: bool) -> None:
        for _ in range(steps):
            self.one_step(ahead)

    def one_step(self, ahead: bool = False) -> None:
        """Plans as long as may be when `ahead`, else once at most; then takes the oldest result."""
        while self.scheduler.may_plan and (ahead or not self.results):
            self.plan()
        self.take_result()

    @rule()
    def plan(self) -> None:
        if not self.scheduler.may_plan:
            return
        alone = not self.results
        before = {request: request.preemptions for request in self.live}
        plan = self.scheduler.schedule()
        assert plan.total_tokens <= self.scheduler.limits.token_budget
        rows = worked_rows(plan)
        assert len(rows) == len(set(rows))
        self.check_victims(before)
        if alone:
            self.check_progress(plan)
        # The ranks work plan by plan: what a plan does to them is done when the next one comes.
        self.results.append(self.ranks.step(plan))

    def check_progress(self, plan: StepPlan) -> None:
        assert plan.idle != bool(self.live), "work to do, and no progress"
        first = min(self.live, key=lambda request: request.urgency, default=None)
        if first is not None:
            goes_on = first.row in worked_rows(plan)
            assert goes_on or first.waits_for is not None, "the most urgent one goes on, or waits for a prefix"

    @precondition(lambda self: self.results)
    @rule()
    def take_result(self) -> None:
        update = self.scheduler.update(self.results.popleft())
        self.take_advanced(update.advanced)
        for outcome in update.outcomes:
            assert outcome.request in self.live, "who ended, or was aborted, hears no more"
            self.got[outcome.request] += outcome.token_ids
            self.check_scores(outcome)
            if outcome.finish != FINISH_REASON_UNSPECIFIED:
                self.live.remove(outcome.request)  # raises when it ended before
                assert self.got[outcome.request] == self.wanted[outcome.request]
                assert outcome.embedding == self.embeddings[outcome.request]
                assert (outcome.finish == FINISH_REASON_EMBEDDED) == bool(outcome.request.pooling)

    def take_advanced(self, advanced: Advanced) -> None:
        by_id = {request.id: request for request in self.live}
        for number, token in zip(advanced.ids.tolist(), advanced.tokens.tolist(), strict=True):
            assert number in by_id, "who ended, or was aborted, hears no more"
            self.got[by_id[number]].append(token)

    def check_victims(self, before: dict[Request, int]) -> None:
        """Whoever gave way gave way to a more urgent one, which now runs."""
        running = self.scheduler._roster.running
        for request in self.live:
            assert request.preemptions <= before[request] + 1, "at most once a step"
            if request.preemptions > before[request]:
                assert running and running[0].urgency < request.urgency

    def check_scores(self, outcome: Outcome) -> None:
        """Log probabilities of the prompt come once, whole, with the first token."""
        request, scores = outcome.request, outcome.prompt_logprobs
        first = self.scored.pop(request, False) and len(self.got[request]) == 1
        assert (scores is not None) == first
        if scores is not None:
            assert scores.ids == request.tokens[1 : request.prompt_tokens].tobytes()

    @invariant()
    def in_order(self) -> None:
        roster = self.scheduler._roster
        for line in (roster.running, roster.waiting):
            urgencies = [request.urgency for request in line]
            assert urgencies == sorted(urgencies)
        most = sum(roster.pool.pages_for(request.prompt_tokens + request.max_new_tokens) for request in roster.running)
        assert roster.most_pages == most
        running = {key for request in roster.running for key in request.keys[request.computed // PAGE_SIZE :]}
        assert set(roster.underway._owners) <= running, "nobody waits for what nobody computes"

    @invariant()
    def pages_add_up(self) -> None:
        held: dict[int, int] = {}
        for request in self.live:
            for page in request.pages:
                held[page] = held.get(page, 0) + 1
        assert [held.get(page, 0) for page in range(TOTAL_PAGES)] == self.pool._references
        blank, cached = set(self.pool._blank), set(self.pool._cached)
        assert len(blank) == len(self.pool._blank) and not blank & cached
        assert blank | cached | set(held) == set(range(TOTAL_PAGES))
        assert self.pool.used_pages == len(held)
        assert all(self.pool._entries[page] is not None for page in cached)

    @invariant()
    def index_and_events_agree(self) -> None:
        for change in self.pool.events.drain():
            if change.op is KvOp.CLEARED:
                self.replayed.clear()
            elif change.op is KvOp.STORED:
                assert not self.replayed & set(change.keys)
                self.replayed |= set(change.keys)
            else:
                assert self.replayed >= set(change.keys)
                self.replayed -= set(change.keys)
        assert self.replayed == set(self.pool.keys())

    @invariant()
    def uncached_tokens_add_up(self) -> None:
        assert self.scheduler.uncached_tokens == sum(request.uncached for request in self.live)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        steps = 0
        while self.live or self.results:
            self.one_step(ahead=steps % 2 == 0)
            steps += 1
            assert steps < 2000, "requests do not end"
        self.pages_add_up()
        self.index_and_events_agree()
        assert self.pool.used_pages == 0 and self.scheduler.uncached_tokens == 0


class Pipelined(Machine):
    """As many plans out as stages, each request in one of them."""

    @initialize(forecast=st.booleans(), stages=st.integers(2, 3), in_columns=st.just(1), budget=st.just(9))
    def begin(self, forecast: bool, stages: int, in_columns: int, budget: int) -> None:
        super().begin(forecast, stages, in_columns, budget)

    def one_step(self, ahead: bool = False) -> None:
        alone = ahead and not self.results
        while self.scheduler.may_plan and (ahead or not self.results):
            self.plan()
        if alone and self.live:
            first = min(self.live, key=lambda request: request.urgency)
            in_a_plan = first.pending or first.planned > first.computed
            assert in_a_plan or first.waits_for is not None, "the most urgent one goes on, or waits for a prefix"
        self.take_result()

    def check_progress(self, plan: StepPlan) -> None:
        """One plan has a part of the rows; whether the most urgent one is among them, all plans together show."""
        assert plan.idle != bool(self.live), "work to do, and no progress"


TestPageAccounting = Machine.TestCase
TestPipelined = Pipelined.TestCase
TestPageAccounting.settings = TestPipelined.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
