"""Where every live request stands: in the queue, or in the batch with a row, pages and an adapter's slot."""

from __future__ import annotations

from collections import Counter
from functools import partial

from ..pages import PagePool, Prefix
from ..plan import RowAdded
from .adapters import AdapterSlots
from .decodes import Decodes
from .lengths import OutputLengths
from .limits import Limits
from .line import Line
from .request import NO_ROW, Request, row_added
from .rows import Rows
from .shares import Shares
from .underway import Underway


class Roster:
    """The queue and the batch, both in order of urgency, and what it takes to get from one to the other.

    Who does is decided elsewhere (admission.py, scheduler.py). `uncached_tokens` are what prompts still need computed;
    `most_pages` is what the batch would fill if all outputs were as long as they may be and shared nothing; `lengths`
    are those of outputs that ended. `departures` counts who has left the batch. Of those that run, `decodes` has some
    in columns, and `loose` are the others.
    """

    def __init__(self, limits: Limits, pool: PagePool) -> None:
        self.pool = pool
        self.waiting = Line()
        self.running = Line()
        self.loose = Line()
        self.decodes = Decodes(pool.page_size, limits.vocab_size, partial(self.advance, sound=True), self.loose.add)
        self.underway = Underway()
        self.rows = Rows(limits.max_sequences)
        self.adapters = AdapterSlots(limits.max_adapters)
        self.preemptions = 0
        self.cached_tokens = 0
        self.uncached_tokens = 0
        self.most_pages = 0
        self.departures = 0
        self._priorities: Counter[int] = Counter()
        self.lengths = OutputLengths()

    @property
    def least_priority(self) -> int:
        """The highest value of any running request's priority."""
        return max(self._priorities, default=0)

    def enqueue(self, request: Request) -> None:
        """A new request waits."""
        self.waiting.add(request)
        self.set_uncached(request, len(request.tokens) - self.find(request).depth * self.pool.page_size)

    def enter(self, request: Request, prefix: Prefix) -> RowAdded:
        """A waiting request joins the batch; the caller has seen to a row and shared the pages of `prefix`."""
        self.waiting.remove(request)
        request.row = self.rows.take()
        request.waits_for = None
        request.disk_job = 0
        request.prompt_scores = []
        request.pages = self.pool.gather(prefix)
        request.computed = request.planned = prefix.depth * self.pool.page_size
        request.told = len(request.tokens)
        request.stays += 1
        request.committed = prefix.depth
        request.entered = request.computed
        self.most_pages += self._most_pages(request)
        request.prefill_end = len(request.tokens)
        if request.cached_tokens is None:
            request.cached_tokens = min(request.computed, request.prompt_tokens)
            self.cached_tokens += request.cached_tokens
        self.running.add(request)
        self.loose.add(request)
        self._priorities[request.priority] += 1
        self.underway.begin(request, self.pool.page_size)
        self.set_uncached(request, request.remaining)
        return row_added(request, list(request.pages), self.adapters.enter(request.adapter))

    def sit(self, request: Request) -> None:
        """A running request that suits goes to the columns."""
        self.loose.remove(request)
        self.decodes.sit(request)

    def grow(self, request: Request, count: int) -> list[int]:
        """Pages for `count` more tokens; the caller has made sure that they are there."""
        missing = self.pool.pages_for(request.planned + count) - len(request.pages)
        if missing <= 0:
            return []
        new_pages = self.pool.take(missing)
        request.pages += new_pages
        return new_pages

    def advance(self, request: Request, count: int, *, sound: bool) -> None:
        """The KV of `count` more tokens is computed. Pages that are not `sound` are not offered to others."""
        page = request.computed // self.pool.page_size
        request.computed += count
        self.set_uncached(request, max(0, request.prefill_end - request.computed))
        if (complete := request.computed // self.pool.page_size) > page:
            self.underway.end(request, page, complete)
            if sound:
                self._commit(request)

    def preempt(self, victim: Request, shares: Shares) -> None:
        """Sends a running request back to its place in the queue; it keeps its tokens and computes their KV again."""
        assert not victim.seat, "pages are scarce, and nobody is in columns"
        # Whoever was served in this step is more urgent than whoever needs pages now, and the victim is not.
        shares.drop(victim)
        self._retire(victim)
        victim.preemptions += 1
        self.preemptions += 1
        self.waiting.add(victim)
        self.set_uncached(victim, len(victim.tokens))

    def leave(self, request: Request) -> None:
        """A request is gone for good, whatever its state; its pages are free at once.

        A plan that is out may still write to them: the ranks do so before what a later plan has them for."""
        if request.seat:
            self.decodes.rise(request)
        request.over = True
        if request.output_tokens:
            self.lengths.add(request.output_tokens)
        if request.row == NO_ROW:
            self.waiting.remove(request)
            self.set_uncached(request, 0)
        else:
            self._retire(request)

    def find(self, request: Request) -> Prefix:
        """Its cached prefix. The last known token is always computed: its logits are what is sampled from."""
        limit = (len(request.tokens) - 1) // self.pool.page_size
        if limit > len(request.keys):  # it gave way before its last page was full
            request.key(limit - 1, self.pool.page_size)
        if not limit or not request.reads_cache or not self.pool.has(request.keys[0]):
            return Prefix()
        return self.pool.find(request.root, request.keys, request.tokens.tobytes(), limit)

    def set_uncached(self, request: Request, tokens: int) -> None:
        """`tokens` of its prompt are still to be computed."""
        self.uncached_tokens += tokens - request.uncached
        request.uncached = tokens

    def _retire(self, request: Request) -> None:
        self.running.remove(request)
        self.loose.remove(request)
        self.departures += 1
        self._priorities[request.priority] -= 1
        if not self._priorities[request.priority]:
            del self._priorities[request.priority]
        self.underway.end(request, request.computed // self.pool.page_size, len(request.keys))
        self.rows.free(request.row)
        self.most_pages -= self._most_pages(request)
        self.adapters.leave(request.adapter)
        self.pool.release(request.pages)
        request.row = NO_ROW
        request.pages = []
        request.computed = request.planned = request.committed = 0
        self.set_uncached(request, 0)

    def _most_pages(self, request: Request) -> int:
        return self.pool.pages_for(request.prompt_tokens + request.max_new_tokens)

    def _commit(self, request: Request) -> None:
        """Offers pages whose KV is now complete to the index, as far as the chain of their keys is its own."""
        size = self.pool.page_size
        for page in range(request.committed, request.computed // size):
            key, parent, tokens = request.key(page, size), request.parent(page), request.page_tokens(page, size)
            if not self.pool.store(request.pages[page], key, parent, tokens):
                break
            request.committed = page + 1
