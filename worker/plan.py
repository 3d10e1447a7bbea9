"""The step plan: what the leader tells every rank, once per engine step.

A plan is a diff against a persistent batch of rows that each rank keeps alike. A rank that gets the same plans computes
the same tensors: there is no decision, clock or randomness in a follower. msgspec encodes it (array-like, no pickle).
"""

from __future__ import annotations

import msgspec

from ..core.sampling import SamplingParams


class RowAdded(msgspec.Struct, frozen=True, array_like=True):
    """A sequence that enters the batch.

    `tokens` are all token ids known so far (prompt, then delivered or generated output) as little-endian u32;
    `prompt_tokens` says how many of them are prompt. KV of the first `computed` tokens lies in `pages` already.
    """

    row: int
    tokens: bytes
    prompt_tokens: int
    computed: int
    pages: list[int]
    sampling: SamplingParams


class RowWork(msgspec.Struct, frozen=True, array_like=True):
    """Tokens to compute for one row in this step: `count` of them, from position `computed`.

    `new_pages` are appended to the row's block table first. `sample` asks for the next token after the last of them;
    it is set exactly when computed + count reaches the number of known tokens.
    """

    row: int
    computed: int
    count: int
    sample: bool
    new_pages: list[int]


class StepPlan(msgspec.Struct, frozen=True, array_like=True):
    """One step. Applied in this order: `freed`, `added`, `appended` tokens, then `work`.

    `appended` holds (row, token id) pairs: the tokens sampled in earlier steps that the rows go on with.
    """

    step: int
    freed: list[int]
    added: list[RowAdded]
    appended: list[tuple[int, int]]
    work: list[RowWork]
    shutdown: bool = False

    @property
    def total_tokens(self) -> int:
        """Tokens that this step computes."""
        return sum(item.count for item in self.work)


class StepResult(msgspec.Struct, frozen=True, array_like=True):
    """What a step gave: one token id for each work item with `sample`, in the plan's order."""

    step: int
    token_ids: list[int]
    model_seconds: float = 0.0
