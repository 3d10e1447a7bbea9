"""The scheduler: admission, the token budget, preemption, and what a step's result means.

Requests are served in order of urgency: by the step in which they arrived, with each level of priority worth
`aging_steps` steps. So a lower value goes first, equals go by arrival, and nobody starves: those that arrive late
enough come after it whatever their priority. `_running` and `_waiting` are in that order, which never changes. The
victim of a preemption is always the last that runs, and the first that runs always makes progress.
"""

from __future__ import annotations

import itertools

from ...core.errors import Overloaded
from ...proto.headway.v1.sampling_pb2 import FINISH_REASON_EMBEDDED, FINISH_REASON_STOP, FINISH_REASON_UNSPECIFIED
from ..pages import PagePool, Prefix
from ..plan import NOT_A_NUMBER, PlaceLogprobs, RowAdded, StepPlan, StepResult
from .adapters import BASE, AdapterSlots
from .guiding import Crew, Guides
from .limits import Limits
from .line import Line
from .outcome import Outcome, take_sample
from .request import NO_ROW, Request, row_added
from .rows import Rows
from .shares import Shares
from .underway import Underway


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
        self._waiting = Line()
        self._running = Line()
        self._underway = Underway()
        self._arrivals = itertools.count()
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
        self.check_room()
        request.urgency = (self._step + request.priority * self.limits.aging_steps, next(self._arrivals))
        self._waiting.add(request)
        self._set_uncached(request, len(request.tokens) - self._find(request).depth * self.pool.page_size)

    def check_room(self, others: int = 0) -> None:
        """Raises Overloaded when the queue would be full with `others` in it, who are still to be submitted."""
        waiting = len(self._waiting) + others
        # Rows that are free go to the head of the queue with the next plan.
        if waiting >= self.limits.max_waiting + self._rows.available:
            raise Overloaded(f"{waiting} requests wait already, and max_waiting is {self.limits.max_waiting}")

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
        if self.pool.tiers is not None:
            self.pool.tiers.settle()
        due = [request for request in self._running if request.remaining == 1 and not request.sits_out]
        shares = Shares(self.limits.token_budget, due)
        added: list[RowAdded] = []
        for request in tuple(self._running):
            if self._waiting and self._waiting[0].outranks(request):
                self._admit(shares, added, ahead_of=request)
            self._serve(request, shares)
        self._admit(shares, added)
        freed, appended = self._rows.drain()
        self._out = shares
        self._step += 1
        work, adapters, masks = shares.work(), self.adapters.drain(), self._guides.masks(shares)
        moves = None if self.pool.tiers is None else self.pool.tiers.drain()
        return StepPlan(self._step, freed, added, appended, work, masks=masks, adapters=adapters, moves=moves)

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
            token = next(sampled) if share.sample else None
            page = request.computed // self.pool.page_size
            request.computed += share.tokens
            self._set_uncached(request, max(0, request.prefill_end - request.computed))
            if (complete := request.computed // self.pool.page_size) > page:
                self._underway.end(request, page, complete)
                if token != NOT_A_NUMBER:  # whose KV is no better
                    self._commit(request)
            if request.row in prompts:
                request.prompt_scores.append(prompts[request.row])
            if token is not None:
                outcomes.append(self._take(request, token, logprobs.get(request.row)))
            elif share.embed:
                self._retire(request)
                outcomes.append(Outcome(request, [], FINISH_REASON_EMBEDDED, embedding=next(pooled)[1]))
        self._guides.start()
        return outcomes

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

    def _take(self, request: Request, token: int, logprobs: PlaceLogprobs | None) -> Outcome:
        outcome = take_sample(request, token, self.limits.max_context_tokens)
        if logprobs is not None or request.prompt_logprobs >= 0:
            outcome = outcome._replace(logprobs=logprobs, prompt_logprobs=request.take_prompt_scores())
        if outcome.ended:
            self._retire(request)
        else:
            self._rows.append(request.row, token)
            self._guides.push(request, token)
        return outcome

    def _serve(self, request: Request, shares: Shares) -> None:
        """Gives a running request its tokens: one when it decodes, or what is left. The last ones give way to it."""
        if request.row == NO_ROW or request in shares or request.sits_out or not (count := shares.allowance(request)):
            return
        room = len(request.pages) * self.pool.page_size - request.computed
        while room == 0 and not self.pool.free_pages and request.row != NO_ROW:
            self._preempt(self._running[-1], shares)
        if request.row == NO_ROW:
            return
        count = min(count, room + self.pool.free_pages * self.pool.page_size)
        shares.give(request, count, self._grow(request, count))

    def _admit(self, shares: Shares, added: list[RowAdded], ahead_of: Request | None = None) -> None:
        """Takes waiting requests into the batch, in order, as long as budget, rows and pages last.

        Those that outrank `ahead_of` go before it, and may take rows and pages of running ones that they outrank.
        """
        # Without `ahead_of` and with budget left, whoever runs has pages for all its tokens, or none is free: no page
        # is promised to anybody.
        # A request whose adapter finds no slot lets those without an adapter pass, and no others: they would keep the
        # slots from it.
        at, held_up = 0, False
        while at < len(self._waiting) and shares.spare > 0:
            request = self._waiting[at]
            if ahead_of is not None and not request.outranks(ahead_of):
                return
            if request.adapter != BASE and (held_up or not self.adapters.available(request.adapter)):
                held_up = True
                at += 1
                continue
            if request.sits_out or request.waits_for in self._underway or self._reads_disk(request):
                at += 1
                continue
            victims = self._victims(request, shares)
            if not (self._rows.available or victims) or self._blocked(request, victims):
                return
            prefix = self._find(request)
            if self._wait_for_disk(request, prefix):
                at += 1
                continue
            prefix = prefix.before_disk()
            if self._wait_for_prefix(request, prefix.depth):
                at += 1
                continue
            if not self._make_room(request, prefix.held, victims, shares):
                return
            self._waiting.remove(request)
            added.append(self._enter(request, prefix))
            count = shares.allowance(request)
            shares.give(request, count, self._grow(request, count))

    def _reads_disk(self, request: Request) -> bool:
        """Whether pages of its prefix are on their way from disk."""
        return self.pool.tiers is not None and self.pool.tiers.reads(request.disk_job)

    def _wait_for_disk(self, request: Request, prefix: Prefix) -> bool:
        """Whether its prefix has pages on disk, which it has brought nearer, once, before it enters."""
        if request.disk_job or self.pool.tiers is None or not prefix.on_disk:
            return False
        request.disk_job = self.pool.tiers.read(prefix.rest)
        return bool(request.disk_job)

    def _wait_for_prefix(self, request: Request, hits: int) -> bool:
        """Whether a running request computes pages that this one can share as soon as they are there.

        It then waits for the last of them, and those behind it go on.
        """
        if not self._reads_cache(request):
            return False
        end = self._underway.reach(request.keys, hits, (len(request.tokens) - 1) // self.pool.page_size)
        if end == hits:
            return False
        request.waits_for = request.keys[end - 1]
        self._set_uncached(request, len(request.tokens) - end * self.pool.page_size)
        return True

    def _victims(self, request: Request, shares: Shares) -> list[Request]:
        """Running requests that would give way to this one, the last first."""
        return list(
            itertools.takewhile(lambda other: request.outranks(other) and other not in shares, reversed(self._running))
        )

    def _make_room(self, request: Request, hits: list[int], victims: list[Request], shares: Shares) -> bool:
        """Holds `hits` and sees to a row and to pages for the rest of its tokens; without success all is as before."""
        available = self._available(victims)
        self.pool.share(hits)
        missing = self.pool.pages_for(len(request.tokens)) - len(hits)
        if missing <= self.pool.free_pages + self.pool.freed_by(victim.pages for victim in victims):
            while victims and not self._fits(missing):
                self._preempt(victims.pop(0), shares)
            if self._fits(missing):
                self._blocked_at = None
                return True
        self.pool.release(hits)
        self._blocked_at = (request, available)
        return False

    def _fits(self, pages: int) -> bool:
        return bool(self._rows.available) and pages + self._spare_pages <= self.pool.free_pages

    @property
    def _spare_pages(self) -> int:
        return self.limits.watermark if self._running else 0

    def _available(self, victims: list[Request]) -> int:
        return self.pool.free_pages - self._spare_pages + sum(len(victim.pages) for victim in victims)

    def _blocked(self, request: Request, victims: list[Request]) -> bool:
        """Whether it did not fit before and no page has come free since: its prefix is then not walked again."""
        return (
            bool(self._running)
            and self._blocked_at is not None
            and self._blocked_at[0] is request
            and self._available(victims) <= self._blocked_at[1]
        )

    def _enter(self, request: Request, prefix: Prefix) -> RowAdded:
        request.row = self._rows.take()
        request.waits_for = None
        request.disk_job = 0
        request.prompt_scores = []
        request.pages = self.pool.gather(prefix)
        request.computed = prefix.depth * self.pool.page_size
        request.committed = prefix.depth
        request.prefill_end = len(request.tokens)
        if request.cached_tokens is None:
            request.cached_tokens = min(request.computed, request.prompt_tokens)
            self.cached_tokens += request.cached_tokens
        self._running.add(request)
        self._underway.begin(request, self.pool.page_size)
        self._set_uncached(request, request.remaining)
        return row_added(request, list(request.pages), self.adapters.enter(request.adapter))

    @staticmethod
    def _reads_cache(request: Request) -> bool:
        """A prompt whose log probabilities are wanted has to be computed."""
        return not request.cache_bypass and request.prompt_logprobs < 0

    def _find(self, request: Request) -> Prefix:
        """Its cached prefix. The last known token is always computed: its logits are what is sampled from."""
        limit = (len(request.tokens) - 1) // self.pool.page_size
        if not limit or not self._reads_cache(request) or not self.pool.has(request.keys[0]):
            return Prefix()
        return self.pool.find(request.root, request.keys, request.tokens.tobytes(), limit)

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
        """Sends a running request back to its place in the queue; it keeps its tokens and computes their KV again."""
        # Whoever was served in this step is more urgent than whoever needs pages now, and the victim is not.
        shares.drop(victim)
        self._retire(victim)
        victim.preemptions += 1
        self.preemptions += 1
        self._waiting.add(victim)
        self._set_uncached(victim, len(victim.tokens))

    def _retire(self, request: Request) -> None:
        self._running.remove(request)
        self._underway.end(request, request.computed // self.pool.page_size, len(request.keys))
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
