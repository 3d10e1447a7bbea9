"""The scheduler: admission, the token budget, preemption, and what a step's result means.

Requests are served in order of arrival and do not overtake, but for those that wait for a slot of their LoRA adapter.
`_running` is in order of admission and `_waiting` in that of arrival, a preempted request ahead of it; the victim of a
preemption is the latest that runs: so the oldest request always makes progress.
"""

from __future__ import annotations

from collections import deque

from ...core.errors import Overloaded
from ...proto.headway.v1.sampling_pb2 import FINISH_REASON_EMBEDDED, FINISH_REASON_STOP, FINISH_REASON_UNSPECIFIED
from ..pages import PagePool
from ..plan import PlaceLogprobs, RowAdded, StepPlan, StepResult
from .adapters import BASE, AdapterSlots
from .guiding import Crew, Guides
from .limits import Limits
from .outcome import Outcome, take_sample
from .request import NO_ROW, Request
from .rows import Rows
from .shares import Shares


class Scheduler:
    """Turns requests into step plans and step results into outcomes. One plan is out at a time."""

    def __init__(self, limits: Limits, pool: PagePool, crew: Crew | None = None) -> None:
        """`crew` is needed for requests with a guide."""
        self.limits = limits
        self.pool = pool
        self.adapters = AdapterSlots(limits.max_adapters)
        self.preemptions = 0
        self.cached_tokens = 0
        self.uncached_tokens = 0
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._rows = Rows(limits.max_sequences)
        self._guides = Guides(crew)
        self._step = 0
        self._out: Shares | None = None
        self._idle = False
        self._blocked_at: tuple[Request, int] | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting)

    def submit(self, request: Request) -> None:
        """Queues the request. Raises Overloaded when the queue is full, ContextTooLong when it could never fit."""
        self.limits.check_fits(request.prompt_tokens, request.max_new_tokens)
        # Rows that are free go to the head of the queue with the next plan.
        if len(self._waiting) >= self.limits.max_waiting + self._rows.available:
            raise Overloaded(
                f"{len(self._waiting)} requests wait already, and max_waiting is {self.limits.max_waiting}"
            )
        self._waiting.append(request)
        hits = len(self._hits(request)) * self.pool.page_size
        self._set_uncached(request, len(request.tokens) - hits)

    def abort(self, request: Request) -> None:
        """Takes a live request out, whatever its state; its pages are free at once."""
        assert self._out is None, "a plan is out"
        self._guides.drop(request)
        if request.row == NO_ROW:
            self._waiting.remove(request)
            self._set_uncached(request, 0)
        else:
            self._retire(request)

    def schedule(self) -> StepPlan:
        """The next plan. Without work to do it carries only what the ranks have not been told yet: a ping."""
        assert self._out is None, "a plan is out"
        shares = Shares(self.limits.token_budget)
        self._serve(shares, decoding=True)
        self._serve(shares, decoding=False)
        added = self._admit(shares)
        freed, appended = self._rows.drain()
        self._out = shares
        self._step += 1
        work, adapters, masks = shares.work(), self.adapters.drain(), self._guides.masks(shares)
        return StepPlan(self._step, freed, added, appended, work, masks=masks, adapters=adapters)

    def update(self, result: StepResult) -> list[Outcome]:
        """Takes the result of the plan that is out."""
        shares, self._out = self._out, None
        assert shares is not None, "no plan is out"
        if result.step != self._step or len(result.token_ids) != shares.samples():
            raise RuntimeError(
                f"step {self._step} with {shares.samples()} samples got the result of step {result.step} "
                f"with {len(result.token_ids)} tokens"
            )
        if [row for row, _ in result.pooled] != shares.embeds():
            raise RuntimeError(f"step {self._step}: embeddings of other rows than {shares.embeds()}")
        sampled, pooled = iter(result.token_ids), iter(result.pooled)
        logprobs, prompts = dict(result.logprobs), dict(result.prompt_logprobs)
        self._idle = not len(shares)
        outcomes = []
        for request, share in shares.items():
            request.computed += share.tokens
            self._set_uncached(request, max(0, request.prefill_end - request.computed))
            self._commit(request)
            if request.row in prompts:
                request.prompt_scores.append(prompts[request.row])
            if share.sample:
                outcomes.append(self._take(request, next(sampled), logprobs.get(request.row)))
            elif share.embed:
                self._retire(request)
                outcomes.append(Outcome(request, [], FINISH_REASON_EMBEDDED, embedding=next(pooled)[1]))
        self._guides.start()
        return outcomes

    def settle(self) -> list[Outcome]:
        """Waits a moment for the grammars of what `update` sampled; what ends by its grammar."""
        outcomes = []
        for request in self._guides.settle(idle=self._idle):
            assert request.guide is not None
            self.abort(request)
            finish = FINISH_REASON_STOP if request.guide.error is None else FINISH_REASON_UNSPECIFIED
            outcomes.append(Outcome(request, [], finish, error=request.guide.error))
        return outcomes

    def _take(self, request: Request, token: int, logprobs: PlaceLogprobs | None) -> Outcome:
        outcome = take_sample(request, token, self.limits.max_context_tokens)
        outcome = outcome._replace(logprobs=logprobs, prompt_logprobs=request.take_prompt_scores())
        if outcome.ended:
            self._retire(request)
        else:
            self._rows.append(request.row, token)
            self._guides.push(request, token)
        return outcome

    def _serve(self, shares: Shares, *, decoding: bool) -> None:
        """Gives running requests their tokens: one each to those that decode, or what is left to those that do not."""
        for request in tuple(self._running):
            if request.row == NO_ROW or (request.remaining == 1) is not decoding or not shares.budget:
                continue
            if request.sits_out:
                continue
            count = min(request.remaining, shares.budget)
            room = len(request.pages) * self.pool.page_size - request.computed
            while room == 0 and not self.pool.free_pages and request.row != NO_ROW:
                self._preempt(self._running[-1], shares)
            if request.row == NO_ROW:
                continue
            count = min(count, room + self.pool.free_pages * self.pool.page_size)
            shares.give(request, count, self._grow(request, count))

    def _admit(self, shares: Shares) -> list[RowAdded]:
        """Takes waiting requests into the batch, in order, as long as budget, rows and pages last."""
        # With budget left, whoever runs has pages for all its tokens, or none is free: no page is promised to anybody.
        added = []
        while shares.budget and self._rows.available and (request := self._next()) is not None:
            spare = self.limits.watermark if self._running else 0
            available = self.pool.free_pages - spare
            if self._blocked(request, available) or request.sits_out:
                break
            hits = self._hits(request)
            self.pool.share(hits)
            missing = self.pool.pages_for(len(request.tokens)) - len(hits)
            if missing + spare > self.pool.free_pages:
                self.pool.release(hits)
                self._blocked_at = (request, available)
                break
            self._blocked_at = None
            self._waiting.remove(request)
            slot = self._enter(request, hits)
            added.append(
                RowAdded(
                    request.row,
                    request.tokens.tobytes(),
                    request.prompt_tokens,
                    request.computed,
                    hits,
                    request.sampling,
                    request.sequence,
                    request.rules,
                    request.logprobs,
                    request.prompt_logprobs,
                    pooling=request.pooling,
                    adapter=slot,
                )
            )
            count = min(request.remaining, shares.budget)
            shares.give(request, count, self._grow(request, count))
        return added

    def _next(self) -> Request | None:
        """Who is to enter next: the first that waits, but for one whose adapter finds no slot. That one lets requests
        without an adapter pass, and no others: they would keep the slots from it."""
        held_up = False
        for request in self._waiting:
            if request.adapter == BASE or not (held_up or not self.adapters.available(request.adapter)):
                return request
            held_up = True
        return None

    def _blocked(self, request: Request, available: int) -> bool:
        """Whether it did not fit before and no page has come free since: its prefix is then not walked again."""
        return (
            bool(self._running)
            and self._blocked_at is not None
            and self._blocked_at[0] is request
            and available <= self._blocked_at[1]
        )

    def _enter(self, request: Request, hits: list[int]) -> int:
        """Gives the request a row, and returns the slot of its adapter."""
        request.row = self._rows.take()
        request.prompt_scores = []
        request.pages = list(hits)
        request.computed = len(hits) * self.pool.page_size
        request.committed = len(hits)
        request.prefill_end = len(request.tokens)
        if request.cached_tokens is None:
            request.cached_tokens = min(request.computed, request.prompt_tokens)
            self.cached_tokens += request.cached_tokens
        self._running.append(request)
        self._set_uncached(request, request.remaining)
        return self.adapters.enter(request.adapter)

    def _hits(self, request: Request) -> list[int]:
        """Cached pages of its prefix. The last known token is always computed: its logits are what is sampled from."""
        if request.cache_bypass or request.prompt_logprobs >= 0:
            return []
        limit = (len(request.tokens) - 1) // self.pool.page_size
        if not limit or not self.pool.has(request.keys[0]):
            return []
        return self.pool.match(request.root, request.keys, request.tokens.tobytes(), limit)

    def _grow(self, request: Request, count: int) -> list[int]:
        """Pages for `count` more tokens; the caller has made sure that they are there."""
        new_pages = self.pool.take(max(0, self.pool.pages_for(request.computed + count) - len(request.pages)))
        request.pages += new_pages
        return new_pages

    def _commit(self, request: Request) -> None:
        """Offers pages whose KV is now complete to the index, as far as the chain of their keys is its own."""
        size = self.pool.page_size
        for page in range(request.committed, request.computed // size):
            key, parent, tokens = request.key(page, size), request.parent(page), request.page_tokens(page, size)
            if not self.pool.store(request.pages[page], key, parent, tokens):
                break
            request.committed = page + 1

    def _preempt(self, victim: Request, shares: Shares) -> None:
        """Sends a running request back to the head of the queue; it keeps its tokens and computes their KV again."""
        # Only the latest running request can be short of more than one token: it got what all others had left. So the
        # victim, which is later than whoever needs its pages, has not been served in this step.
        assert victim not in shares
        self._retire(victim)
        victim.preemptions += 1
        self.preemptions += 1
        self._waiting.appendleft(victim)
        self._set_uncached(victim, len(victim.tokens))

    def _retire(self, request: Request) -> None:
        self._running.remove(request)
        self._rows.free(request.row)
        self.adapters.leave(request.adapter)
        self.pool.release(request.pages)
        request.row = NO_ROW
        request.pages = []
        request.computed = request.committed = 0
        self._set_uncached(request, 0)

    def _set_uncached(self, request: Request, tokens: int) -> None:
        self.uncached_tokens += tokens - request.uncached
        request.uncached = tokens
