"""The scheduler: the token budget, preemption, and what a step's result means.

Requests are served in order of urgency: by the step in which they arrived, with each level of priority worth
`aging_steps` steps. So a lower value goes first, equals go by arrival, and nobody starves: those that arrive late
enough come after it whatever their priority. Queue and batch are in that order, which never changes. Who joins the
batch, and who gives way, is decided in admission.py.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import NamedTuple

import numpy as np

from ...core.errors import Overloaded
from ...proto.headway.v1.sampling_pb2 import FINISH_REASON_EMBEDDED, FINISH_REASON_STOP, FINISH_REASON_UNSPECIFIED
from ..pages import PagePool
from ..plan import NOT_A_NUMBER, PlaceLogprobs, RowAdded, StepPlan, StepResult
from .adapters import AdapterSlots
from .admission import Admission
from .decodes import NONE_DECODING, Advanced, Decoding, Risen
from .guiding import Crew, Guides
from .limits import Limits
from .outcome import Outcome, take_sample
from .request import NO_ROW, Request
from .roster import Roster
from .shares import Shares

# From how many on requests that decode go in columns: a few are sooner looked at one by one.
IN_COLUMNS = 8


class Update(NamedTuple):
    """What a result meant. `advanced` are the requests of which there is nothing to tell but a token."""

    outcomes: list[Outcome]
    advanced: Advanced


class Scheduler:
    """Turns requests into step plans and step results into outcomes.

    Every plan is answered by a result, in order. Several may be out: where the pipeline has one stage, the next one is
    made while the last one runs, and rows go on with tokens that only the ranks know; with more stages, each
    plan takes its part of the rows, so that all stages have work.
    """

    def __init__(self, limits: Limits, pool: PagePool, crew: Crew | None = None, in_columns: int = IN_COLUMNS) -> None:
        """`crew` is needed for requests with a guide. `in_columns` or more that decode go in columns (decodes.py)."""
        self.limits = limits
        self.pool = pool
        self._roster = Roster(limits, pool)
        self._admission = Admission(limits, self._roster)
        self._arrivals = itertools.count()
        self._guides = Guides(crew)
        self._step = 0
        self._out: deque[tuple[int, Shares]] = deque()
        self._idle = False
        self._in_columns = in_columns

    @property
    def running(self) -> int:
        return len(self._roster.running)

    @property
    def waiting(self) -> int:
        return len(self._roster.waiting)

    @property
    def busy(self) -> bool:
        return bool(self._out or self._roster.running or self._roster.waiting)

    @property
    def out(self) -> int:
        """Plans that wait for their results."""
        return len(self._out)

    @property
    def may_plan(self) -> bool:
        """Whether the next plan can go out before a result comes in, and has something to do."""
        if not self._out:
            return True
        if len(self._out) >= self.limits.plans_out or not len(self._out[-1][1]):
            return False  # after one that found nothing to do a result has to come first
        loose = self._roster.loose
        # What a grammar holds needs its last token: without it the others would leave it behind at every other step.
        if self.limits.stages == 1 and any(request.guide is not None for request in loose):
            return False
        return bool(self._roster.waiting) or self._roster.decodes.due or any(request.remaining for request in loose)

    @property
    def preemptions(self) -> int:
        return self._roster.preemptions

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were found in the cache, since the start."""
        return self._roster.cached_tokens

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens of live requests that are still to be computed."""
        return self._roster.uncached_tokens

    @property
    def adapters(self) -> AdapterSlots:
        return self._roster.adapters

    def submit(self, request: Request) -> None:
        """Queues the request. Raises Overloaded when the queue is full, ContextTooLong when it could never fit."""
        self.limits.check_fits(request.prompt_tokens, request.max_new_tokens)
        self.check_room()
        request.urgency = (self._step + request.priority * self.limits.aging_steps, next(self._arrivals))
        request.ahead = self.limits.stages == 1 and request.guide is None
        self._roster.enqueue(request)

    def check_room(self, others: int = 0) -> None:
        """Raises Overloaded when the queue would be full with `others` in it, who are still to be submitted."""
        waiting = self.waiting + others
        # Rows that are free go to the head of the queue with the next plan.
        if waiting >= self.limits.max_waiting + self._roster.rows.available:
            raise Overloaded(f"{waiting} requests wait already, and max_waiting is {self.limits.max_waiting}")

    def abort(self, request: Request) -> None:
        """Takes a live request out, whatever its state; its pages are free at once."""
        self._guides.drop(request)
        self._roster.leave(request)

    def schedule(self) -> StepPlan:
        """The next plan. Without work to do it carries only what the ranks have not been told yet: a ping."""
        if self.pool.tiers is not None:
            self.pool.tiers.settle()
        rows = self._rows_a_plan()
        due, decoding = self._due()
        shares = Shares(self.limits.token_budget, due[:rows], rows, decoding)
        added: list[RowAdded] = []
        for request in tuple(self._roster.loose):
            if self._roster.waiting and self._roster.waiting[0].outranks(request):
                self._admission.admit(shares, added, ahead_of=request)
            self._serve(request, shares)
        self._admission.admit(shares, added)
        freed, appended = self._roster.rows.drain(), shares.appended()
        self._idle = not len(shares) and not self._out
        self._step += 1
        self._out.append((self._step, shares))
        work, adapters, masks = shares.work(), self.adapters.drain(), self._guides.masks(shares)
        moves = None if self.pool.tiers is None else self.pool.tiers.drain()
        return StepPlan(
            self._step, freed, added, appended, work, masks=masks, adapters=adapters, moves=moves,
            decodes=decoding.rows.astype("<u4").tobytes(), grown=decoding.grown,
        )  # fmt: skip

    def update(self, result: StepResult) -> Update:
        """Takes the result of the oldest plan that is out."""
        step, shares = self._out.popleft()
        if result.step != step or len(result.token_ids) != shares.samples():
            raise RuntimeError(
                f"step {step} with {shares.samples()} samples got the result of step {result.step} "
                f"with {len(result.token_ids)} tokens"
            )
        if [row for row, _ in result.pooled] != shares.embeds():
            raise RuntimeError(f"step {step}: embeddings of other rows than {shares.embeds()}")
        sampled, pooled = iter(result.token_ids), iter(result.pooled)
        logprobs, prompts = dict(result.logprobs), dict(result.prompt_logprobs)
        outcomes = []
        for request, share in shares.items():
            token = next(sampled) if share.sample else None
            embedding = next(pooled)[1] if share.embed else b""
            request.pending -= share.sample
            if request.over:
                continue
            if share.stay == request.stays:
                if request.row != NO_ROW:
                    # The KV of what is not a number is no better.
                    self._roster.advance(request, share.tokens, sound=token != NOT_A_NUMBER)
                if share.row in prompts:
                    request.prompt_scores.append(prompts[share.row])
            if token is not None:
                outcomes.append(self._take(request, token, logprobs.get(share.row)))
            elif share.embed:
                self._roster.leave(request)
                outcomes.append(Outcome(request, [], FINISH_REASON_EMBEDDED, embedding=embedding))
        advanced, others = self._roster.decodes.take(shares.decoding, np.array([*sampled], np.int64))
        outcomes += [self._take_risen(risen, token) for risen, token in others if not risen.request.over]
        self._guides.start()
        return Update(outcomes, advanced)

    def settle(self) -> list[Outcome]:
        """Waits a moment for the grammars of what `update` sampled, and for pages when there was nothing else to do;
        what ends by its grammar."""
        if self._idle and self.pool.tiers is not None:
            self.pool.tiers.wait()
        outcomes = []
        for request in self._guides.settle(idle=self._idle):
            assert request.guide is not None
            self.abort(request)
            finish = FINISH_REASON_STOP if request.guide.error is None else FINISH_REASON_UNSPECIFIED
            outcomes.append(Outcome(request, [], finish, error=request.guide.error))
        return outcomes

    def _take_risen(self, risen: Risen, token: int) -> Outcome:
        """The token of a request that decoded in columns when this was planned, and does no more."""
        request = risen.request
        request.pending -= 1
        if risen.stay == request.stays and request.row != NO_ROW:
            self._roster.advance(request, 1, sound=token != NOT_A_NUMBER)
        return self._take(request, token, None)

    def _take(self, request: Request, token: int, logprobs: PlaceLogprobs | None) -> Outcome:
        outcome = take_sample(request, token, self.limits.max_context_tokens)
        if logprobs is not None or request.prompt_logprobs >= 0:
            outcome = outcome._replace(logprobs=logprobs, prompt_logprobs=request.take_prompt_scores())
        if outcome.ended:
            self._guides.drop(request)
            self._roster.leave(request)
        else:
            self._guides.push(request, token)
        return outcome

    def _due(self) -> tuple[list[Request], Decoding]:
        """Those that decode: one by one, and in columns."""
        roster, decodes = self._roster, self._roster.decodes
        suited = [request for request in self._decoding_alone() if decodes.suits(request)]
        if len(decodes) + len(suited) < self._in_columns or not self._plenty():
            decodes.rise_all()
            return self._decoding_alone(), NONE_DECODING
        for request in suited:
            roster.sit(request)
        return self._decoding_alone(), decodes.plan(self.pool)

    def _decoding_alone(self) -> list[Request]:
        return [request for request in self._roster.loose if request.remaining == 1 and not request.sits_out]

    def _plenty(self) -> bool:
        """Whether pages last for everybody that runs, and nobody who waits is to take any from them: then it does not
        matter who is served first. Tokens always do for those that decode."""
        roster, budget = self._roster, self.limits.token_budget
        if roster.waiting and roster.waiting[0].priority < roster.least_priority:
            return False
        wanted = min(budget, sum(request.remaining for request in roster.loose))
        return self.pool.free_pages >= self.running + wanted // self.pool.page_size

    def _rows_a_plan(self) -> int:
        """Rows that may have work in one plan: an equal part of all for each stage."""
        waiting = 0 if self._admission.held_up else self.waiting
        rows = min(self.running + waiting, self.limits.max_sequences)
        return -(-rows // self.limits.stages)

    def _serve(self, request: Request, shares: Shares) -> None:
        """Gives a running request its tokens: one when it decodes, or what is left. The last ones give way to it."""
        if request.row == NO_ROW or request in shares or request.sits_out or not (count := shares.allowance(request)):
            return
        if request.planned > request.computed and shares.spoken_for and not shares.due(request):
            return  # it has work in a plan that is out, and would leave those that decode without a row in this one
        room = len(request.pages) * self.pool.page_size - request.planned
        while room == 0 and not self.pool.free_pages and request.row != NO_ROW:
            self._admission.give_way(request, shares)
        if request.row == NO_ROW:
            return
        count = min(count, room + self.pool.free_pages * self.pool.page_size)
        shares.give(request, count, self._roster.grow(request, count))
