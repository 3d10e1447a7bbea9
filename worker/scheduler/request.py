"""One request, as the scheduler sees it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection

from ...core.blocks import BlockKey, chain_keys
from ...core.constraints import TokenRules
from ...core.sampling import SamplingParams
from ..plan import NO_RULES, PlaceLogprobs, RowAdded
from .adapters import BASE
from .guide import Guide

NO_ROW = -1


class Request:
    """A sequence of known tokens, of which the KV of the first `computed` lies in `pages`.

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

    __slots__ = (
        "adapter",
        "ahead",
        "cache_bypass",
        "cached_tokens",
        "committed",
        "computed",
        "deadline",
        "disk_job",
        "entered",
        "eos_token_ids",
        "first_output_sent",
        "guide",
        "id",
        "keys",
        "logprobs",
        "max_new_tokens",
        "over",
        "pages",
        "pending",
        "planned",
        "pooling",
        "preemptions",
        "prefill_end",
        "priority",
        "prompt_logprobs",
        "prompt_scores",
        "prompt_tokens",
        "root",
        "row",
        "rules",
        "sampling",
        "sequence",
        "session",
        "stays",
        "stop_token_ids",
        "tokens",
        "told",
        "uncached",
        "urgency",
        "waits_for",
    )

    def __init__(
        self,
        *,
        session: int,
        id: int,
        tokens: array[int],
        prompt_tokens: int,
        max_new_tokens: int,
        sampling: SamplingParams,
        root: BlockKey,
        page_size: int,
        eos_token_ids: Collection[int] = (),
        stop_token_ids: Collection[int] = (),
        cache_bypass: bool = False,
        sequence: int = 0,
        rules: TokenRules = NO_RULES,
        logprobs: int = -1,
        prompt_logprobs: int = -1,
        priority: int = 0,
        deadline: float = math.inf,
        pooling: int = 0,
        adapter: int = BASE,
    ) -> None:
        assert tokens.itemsize == 4, "token ids travel as u32"
        self.session = session
        self.id = id
        self.tokens = tokens
        self.prompt_tokens = prompt_tokens
        self.max_new_tokens = max_new_tokens
        self.sampling = sampling
        self.root = root
        self.keys = chain_keys(root, tokens, page_size)
        self.eos_token_ids = frozenset(eos_token_ids)
        self.stop_token_ids = frozenset(stop_token_ids)
        self.cache_bypass = cache_bypass
        self.sequence = sequence
        self.rules = rules
        self.logprobs = logprobs
        self.prompt_logprobs = prompt_logprobs
        self.priority = priority
        self.deadline = deadline
        self.pooling = pooling
        self.adapter = adapter
        self.prompt_scores: list[PlaceLogprobs] = []
        self.guide: Guide | None = None
        self.row = NO_ROW
        self.pages: list[int] = []
        self.ahead = False
        self.over = False
        self.computed = 0
        self.planned = 0
        self.pending = 0
        self.told = 0
        self.stays = 0
        self.committed = 0
        self.entered = 0
        self.preemptions = 0
        self.cached_tokens: int | None = None
        self.first_output_sent = False
        self.prefill_end = len(tokens)
        self.uncached = 0
        self.urgency = (priority, 0)
        self.waits_for: BlockKey | None = None
        self.disk_job = 0

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
