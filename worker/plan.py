"""The step plan: what the leader tells every rank, once per engine step.

A plan is a diff against a persistent batch of rows that each rank keeps alike. A rank that gets the same plans computes
the same tensors: there is no decision, clock or randomness in a follower. msgspec encodes it (array-like, no pickle).
"""

from __future__ import annotations

import msgspec

from ..core.constraints import TokenRules
from ..core.sampling import SamplingParams

NO_RULES = TokenRules()
NOT_A_NUMBER = -1
NONE_ALLOWED = -2
NO_ADAPTER = -1
FORGET = -1
SAMPLED = -1


class RowAdded(msgspec.Struct, frozen=True, array_like=True):
    """A sequence that enters the batch.

    `tokens` are all token ids known so far (prompt, then delivered or generated output) as little-endian u32;
    `prompt_tokens` says how many of them are prompt. KV of the first `computed` tokens lies in `pages` already.
    `sequence` tells the sequences of one public request apart where random numbers are drawn. `logprobs` and
    `prompt_logprobs` are how many of the likeliest tokens are wanted beside each token's own; -1 for nothing at all.
    `pooling` is a Pooling of pooling.proto: unless 0, the row is there for an embedding of its tokens and is never
    sampled from; with MEAN `computed` is 0. `adapter` is the slot of the LoRA adapter that it runs with.
    """

    row: int
    tokens: bytes
    prompt_tokens: int
    computed: int
    pages: list[int]
    sampling: SamplingParams
    sequence: int = 0
    rules: TokenRules = NO_RULES
    logprobs: int = -1
    prompt_logprobs: int = -1
    pooling: int = 0
    adapter: int = NO_ADAPTER


class RowWork(msgspec.Struct, frozen=True, array_like=True):
    """Tokens to compute for one row in this step: `count` of them, from position `computed`.

    `new_pages` are appended to the row's block table first. `sample` asks for the next token after the last of them;
    it is set exactly when computed + count reaches the number of known tokens, and never in a row with `pooling`.
    """

    row: int
    computed: int
    count: int
    sample: bool
    new_pages: list[int]


class PageMoves(msgspec.Struct, frozen=True, array_like=True):
    """Copies of whole pages, all layers of the rank, between its device, its host tier's slots and its disk tier's.

    `spills` holds (page, host slot): device to host, all of them first. Then `fetches`, (host slot, page): host to
    device. Pages and slots differ within each list; a page or slot may be in both. Then `disk` jobs begin, behind this
    and later steps, one after the other: (write, host slot, disk slot), host to disk where `write` is set, else disk to
    host. Until every rank has finished a job no move writes its host slot, nor reads it if the job does not write.
    """

    spills: list[tuple[int, int]] = []
    fetches: list[tuple[int, int]] = []
    disk: list[tuple[bool, int, int]] = []


class StepPlan(msgspec.Struct, frozen=True, array_like=True):
    """One step. Applied in this order: `moves`, `adapters`, `freed`, `added`, `appended` tokens, `grown`, then `work`
    and `decodes` together.

    `adapters` holds (slot, number) pairs: copy the adapter that was read under this number into the slot; with slot
    FORGET, drop what was read. No row of the slot's last adapter has work in this step or later.
    `appended` holds (row, token id) pairs: the tokens sampled in earlier steps that the rows go on with. In place of an
    id stands SAMPLED where the leader had not seen it when it planned: the one sampled for this row last. `masks` holds
    (row, mask) for sampled rows that a grammar binds: bit i % 32 of the little-endian u32 number i // 32 says whether
    token i may come.
    `decodes` holds rows as little-endian u32, none of them in `work`: each goes on with the token that was sampled for
    it last, computes that one, and is sampled from; pages that they need for it are in `grown`, as (row, page).
    """

    step: int
    freed: list[int]
    added: list[RowAdded]
    appended: list[tuple[int, int]]
    work: list[RowWork]
    shutdown: bool = False
    masks: list[tuple[int, bytes]] = []
    adapters: list[tuple[int, int]] = []
    moves: PageMoves | None = None
    decodes: bytes = b""
    grown: list[tuple[int, int]] = []

    @property
    def decoding(self) -> int:
        """Rows in `decodes`."""
        return len(self.decodes) // 4

    @property
    def idle(self) -> bool:
        """Whether it has nothing to compute."""
        return not self.work and not self.decodes

    @property
    def total_tokens(self) -> int:
        """Tokens that this step computes."""
        return sum(item.count for item in self.work) + self.decoding


class PlaceLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities at successive places, `width` entries each: the place's own token, then the likeliest ones.

    ids: little-endian u32, values: little-endian float32, both width for each place.
    """

    width: int
    ids: bytes
    values: bytes

    def __add__(self, other: PlaceLogprobs) -> PlaceLogprobs:
        """These places, then the other ones, of the same width."""
        assert self.width == other.width
        return PlaceLogprobs(self.width, self.ids + other.ids, self.values + other.values)


class StepResult(msgspec.Struct, frozen=True, array_like=True):
    """What a step gave: one token id for each work item with `sample`, in the plan's order, then for each of `decodes`.

    In place of an id stands NOT_A_NUMBER when the model's logits were not finite, and NONE_ALLOWED when rules and mask
    left no token to choose from: such a row ends.

    `logprobs` holds (row, those of its sampled token) for the rows that want them; `prompt_logprobs` holds (row, those
    of the prompt tokens that follow the tokens which this step computed). `pooled` holds (row, embedding), as
    little-endian float32, for the rows with `pooling` of which this step computed the last token, in the plan's order.
    """

    step: int
    token_ids: list[int]
    model_seconds: float = 0.0
    logprobs: list[tuple[int, PlaceLogprobs]] = []
    prompt_logprobs: list[tuple[int, PlaceLogprobs]] = []
    pooled: list[tuple[int, bytes]] = []
