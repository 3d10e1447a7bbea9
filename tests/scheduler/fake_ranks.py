"""A stand-in for the ranks that applies step plans literally and checks what the plan's contract promises.

Each slot of each page remembers the whole prefix that its KV was computed from, so a page shared wrongly, reused too
early or missing is seen the moment a row attends to it.
"""

from __future__ import annotations

import xxhash

from headway.proto.headway.v1.pooling_pb2 import POOLING_MEAN
from headway.worker.plan import SAMPLED, PlaceLogprobs, RowAdded, RowWork, StepPlan, StepResult

PAGE_SIZE = 4


def prefix_digest(salt: bytes, tokens: list[int]) -> list[int]:
    """Digest of each prefix of `tokens`, the first of one token."""
    digests, digest = [], xxhash.xxh64(salt)
    for token in tokens:
        digest.update(token.to_bytes(4, "little"))
        digests.append(digest.intdigest())
    return digests


def next_token(prefix: int, vocabulary: int) -> int:
    """The token source: a function of the prefix alone, as a model is."""
    return (prefix >> 7) % vocabulary


def embedding_of(prefixes: list[int], pooling: int) -> bytes:
    """Of the prefix alone, too: of its last token's state, or of all of them."""
    return xxhash.xxh64(repr(prefixes if pooling == POOLING_MEAN else prefixes[-1:]).encode()).digest()


def decoding_rows(plan: StepPlan) -> list[int]:
    """Rows that decode without an item."""
    return [int.from_bytes(plan.decodes[at : at + 4], "little") for at in range(0, len(plan.decodes), 4)]


class _Row:
    def __init__(self, added: RowAdded, tokens: list[int], salt: bytes) -> None:
        self.tokens, self.salt, self.pages, self.computed = tokens, salt, list(added.pages), added.computed
        self.pooling = added.pooling
        self.states: list[int] = []
        self.sampled: int | None = None
        self.scored = added.prompt_tokens if added.prompt_logprobs >= 0 else 0

    def scores(self, first: int, end: int) -> PlaceLogprobs:
        """The tokens that follow, in place of log probabilities."""
        ids = b"".join(token.to_bytes(4, "little") for token in self.tokens[first + 1 : end + 1])
        return PlaceLogprobs(1, ids, ids)


class FakeRanks:
    """`salts` tells which requests may share: the seed of their sampling parameters stands for the cache root."""

    def __init__(self, total_pages: int, vocabulary: int) -> None:
        self.slots: list[int | None] = [None] * (total_pages * PAGE_SIZE)
        self.rows: dict[int, _Row] = {}
        self.vocabulary = vocabulary

    def step(self, plan: StepPlan) -> StepResult:
        for row in plan.freed:
            del self.rows[row]
        for added in plan.added:
            assert added.row not in self.rows
            tokens = [int.from_bytes(added.tokens[at : at + 4], "little") for at in range(0, len(added.tokens), 4)]
            salt = added.sampling.seed.to_bytes(8, "little")
            assert added.pooling != POOLING_MEAN or not added.computed, "a mean needs the state of every token"
            self.rows[added.row] = _Row(added, tokens, salt)
        for row, token in plan.appended:
            known = self.rows[row].sampled
            assert known is not None and token in (SAMPLED, known)
            self.rows[row].tokens.append(known)
            self.rows[row].sampled = None
        work_of_all = [*plan.work, *self._decodes(plan)]
        written: set[int] = set()
        sampled, pooled, scores = [], [], []
        for work in work_of_all:
            row = self.rows[work.row]
            row.pages += work.new_pages
            assert work.computed == row.computed and work.count > 0
            end = row.computed + work.count
            ends = end == len(row.tokens)
            assert end <= len(row.tokens) and work.sample == (ends and not row.pooling)
            digests = prefix_digest(row.salt, row.tokens[:end])
            for position in range(end):
                slot = row.pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
                if position < row.computed:
                    assert self.slots[slot] == digests[position], "a row attends to KV that is not of its prefix"
                else:
                    assert slot not in written, "two rows write one slot in one step"
                    written.add(slot)
                    self.slots[slot] = digests[position]
            row.states += digests[row.computed : end]
            if work.computed < min(end, row.scored - 1):
                scores.append((work.row, row.scores(work.computed, min(end, row.scored - 1))))
            row.computed = end
            if ends and row.pooling:
                pooled.append((work.row, embedding_of(row.states, row.pooling)))
            if work.sample:
                row.sampled = next_token(digests[-1], self.vocabulary)
                sampled.append(row.sampled)
        return StepResult(plan.step, sampled, prompt_logprobs=scores, pooled=pooled)

    def _decodes(self, plan: StepPlan) -> list[RowWork]:
        """The same work as items, after the rows have gone on with their last token and taken what they grow by."""
        numbers = decoding_rows(plan)
        assert {row for row, _ in plan.grown} <= set(numbers)
        for row, page in plan.grown:
            self.rows[row].pages.append(page)
        for row in map(self.rows.__getitem__, numbers):
            assert row.sampled is not None
            row.tokens.append(row.sampled)
            row.sampled = None
        return [RowWork(number, self.rows[number].computed, 1, True, []) for number in numbers]
