"""One request, as the scheduler sees it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection
from dataclasses import InitVar, dataclass, field

from ...core.blocks import BlockKey, chain_keys
from ...core.constraints import TokenRules
from ...core.sampling import SamplingParams
from ..plan import NO_RULES, PlaceLogprobs, RowAdded
from .adapters import BASE
from .guide import Guide

NO_ROW = -1


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """A sequence of known tokens, of which the KV of the first `computed` lies in `pages`.

    With a `seat`, unless 0, it decodes in columns, and this is what it was when it sat down (decodes.py).

    The plans so far compute the KV of its first `planned` tokens and sample `pending` more than are known; with `ahead`
    it goes on with such a token before that is known. The ranks were told its first `told` tokens, in its stay number
    `stays` in the batch. Once it is `over`, results that still come for it mean nothing.

    `tokens` are prompt, then output (delivered elsewhere or generated here). `keys` are the chained keys of its full
    pages, `committed` of which have been offered to the index; of those tokens the first `entered` came from the cache.
    A request without a row waits, perhaps for the page of key `waits_for`, which another one computes, or for
    `disk_job`, unless 0, which reads pages of its prefix (worker/tiers). The scheduler serves the least `urgency`
    first. One with `pooling` (of pooling.proto) is there for an embedding: it ends when all its tokens are computed.
    `adapter` is the number of the LoRA adapter that it runs with. `guide` is set before it is submitted, when a grammar
    holds its output.
    """

    session: int
    id: int
    tokens: array[int]
    prompt_tokens: int
    max_new_tokens: int
    sampling: SamplingParams
    root: BlockKey
    page_size: InitVar[int]
    eos_token_ids: Collection[int] = ()
    stop_token_ids: Collection[int] = ()
    cache_bypass: bool = False
    sequence: int = 0
    rules: TokenRules = NO_RULES
    logprobs: int = -1
    prompt_logprobs: int = -1
    priority: int = 0
    deadline: float = math.inf
    pooling: int = 0
    adapter: int = BASE
    guide: Guide | None = None

    # From here on the scheduler's own.
    keys: list[BlockKey] = field(init=False)
    prompt_scores: list[PlaceLogprobs] = field(init=False, default_factory=list)
    row: int = field(init=False, default=NO_ROW)
    pages: list[int] = field(init=False, default_factory=list)
    ahead: bool = field(init=False, default=False)
    over: bool = field(init=False, default=False)
    computed: int = field(init=False, default=0)
    planned: int = field(init=False, default=0)
    pending: int = field(init=False, default=0)
    told: int = field(init=False, default=0)
    stays: int = field(init=False, default=0)
    seat: int = field(init=False, default=0)
    committed: int = field(init=False, default=0)
    entered: int = field(init=False, default=0)
    preemptions: int = field(init=False, default=0)
    cached_tokens: int | None = field(init=False, default=None)
    first_output_sent: bool = field(init=False, default=False)
    prefill_end: int = field(init=False)
    uncached: int = field(init=False, default=0)
    urgency: tuple[int, int] = field(init=False)
    waits_for: BlockKey | None = field(init=False, default=None)
    disk_job: int = field(init=False, default=0)

    def __post_init__(self, page_size: int) -> None:
        assert self.tokens.itemsize == 4, "token ids travel as u32"
        self.keys = chain_keys(self.root, self.tokens, page_size)
        self.eos_token_ids = frozenset(self.eos_token_ids)
        self.stop_token_ids = frozenset(self.stop_token_ids)
        self.prefill_end = len(self.tokens)
        self.urgency = (self.priority, 0)

    @property
    def output_tokens(self) -> int:
        """Output tokens so far, those delivered elsewhere included."""
        return len(self.tokens) - self.prompt_tokens

    def outranks(self, other: Request) -> bool:
        """Whether it may take the other one's place: it is of lower priority value, and that has not aged past it."""
        return self.priority < other.priority and self.urgency < other.urgency

    def take_prompt_scores(self) -> PlaceLogprobs | None:
        """The log probabilities of its prompt, once: what it computes again after that it does not score again."""
        if self.prompt_logprobs < 0:
            return None
        scores = self.prompt_scores
        width = 1 + self.prompt_logprobs
        self.prompt_logprobs, self.prompt_scores = -1, []
        return PlaceLogprobs(width, b"".join(part.ids for part in scores), b"".join(part.values for part in scores))

    @property
    def reads_cache(self) -> bool:
        """Whether its prefix may come from the cache: a prompt whose log probabilities are wanted is computed."""
        return not self.cache_bypass and self.prompt_logprobs < 0

    @property
    def sits_out(self) -> bool:
        """Whether its grammar does not say yet which token may come next, or none may and it is about to end."""
        return self.guide is not None and (not self.guide.ready or self.guide.over)

    @property
    def remaining(self) -> int:
        """Tokens to go on with whose KV no plan computes yet. One for a request that decodes."""
        known = len(self.tokens)
        if self.pending and self.ahead and known + self.pending < self.prompt_tokens + self.max_new_tokens:
            known += self.pending
        return known - self.planned

    def page_tokens(self, page: int, page_size: int) -> bytes:
        """Token ids of the request's page number `page`, as little-endian u32."""
        return self.tokens[page * page_size : (page + 1) * page_size].tobytes()

    def key(self, page: int, page_size: int) -> BlockKey:
        """Key of its full page number `page`; those of generated tokens are chained on as they fill."""
        while len(self.keys) <= page:
            at = len(self.keys)
            self.keys += chain_keys(self.parent(at), self.tokens[at * page_size : (at + 1) * page_size], page_size)
        return self.keys[page]

    def parent(self, page: int) -> BlockKey:
        """Key that the key of page number `page` is chained to."""
        return self.keys[page - 1] if page else self.root


def row_added(request: Request, pages: list[int], slot: int) -> RowAdded:
    """What the ranks are told of a request that starts to run with KV in `pages` and its adapter in `slot`."""
    return RowAdded(
        request.row,
        request.tokens.tobytes(),
        request.prompt_tokens,
        request.computed,
        pages,
        request.sampling,
        request.sequence,
        request.rules,
        request.logprobs,
        request.prompt_logprobs,
        request.pooling,
        slot,
    )
