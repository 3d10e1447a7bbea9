"""Log probabilities that rows ask for: of the token sampled, and of the prompt while it is computed, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...kernels.launch import moved
from ..plan import PlaceLogprobs, RowWork, StepPlan
from ..sampling.logprobs import Logprobs, likeliest, logprobs_of
from .rows import Rows
from .transfer import Outgoing

PIECE_ELEMENTS = 1 << 23  # logits of a prompt's places at a time: 32 MiB

RowLogprobs = list[tuple[int, PlaceLogprobs]]


class Places(NamedTuple):
    """Prompt places of one row that a step scores: `length` computed tokens from position `first`, each of which is
    followed by a prompt token, with the `top` likeliest beside that one."""

    row: int
    first: int
    length: int
    top: int


class Scoring:
    """What the live rows want. Every rank keeps it alike, because all ranks of the last stage take part in logits."""

    def __init__(self) -> None:
        self._output: dict[int, int] = {}
        self._prompt: dict[int, tuple[int, int]] = {}

    def apply(self, plan: StepPlan) -> None:
        """Takes in the plan's diffs."""
        for row in plan.freed:
            self._output.pop(row, None)
            self._prompt.pop(row, None)
        for added in plan.added:
            if added.logprobs >= 0:
                self._output[added.row] = added.logprobs
            if added.prompt_logprobs >= 0:
                self._prompt[added.row] = (added.prompt_logprobs, added.prompt_tokens)

    def places(self, work: Sequence[RowWork]) -> list[Places]:
        """The prompt places that this work can score, in its order."""
        if not self._prompt:
            return []
        places = []
        for item in work:
            top, prompt = self._prompt.get(item.row, (0, 0))
            length = min(item.computed + item.count, prompt - 1) - item.computed
            if length > 0:
                places.append(Places(item.row, item.computed, length, top))
        return places

    def keep(self, logits: Tensor, rows: Sequence[int]) -> Kept | None:
        """The logits of those of the sampled `rows` that want log probabilities, before sampling changes them."""
        asked = [index for index, row in enumerate(rows) if row in self._output] if self._output else []
        if not asked:
            return None
        own = logits.index_select(0, moved(torch.tensor(asked), logits.device))
        return Kept(own, asked, [self._output[rows[index]] for index in asked])


class Kept(NamedTuple):
    """Untouched logits of some sampled rows."""

    logits: Tensor
    indices: list[int]
    tops: list[int]

    def score(self, rows: Sequence[int], tokens: Sequence[int]) -> RowLogprobs:
        """Log probabilities of those rows' chosen `tokens`; a row that has none is left out."""
        own = torch.tensor([max(tokens[index], 0) for index in self.indices], device=self.logits.device)
        return self._by_row(rows, tokens, logprobs_of(self.logits, own, max(self.tops)))

    def send(self, rows: Sequence[int], tokens: Tensor, outgoing: Outgoing) -> Callable[[list[int]], RowLogprobs]:
        """The same of tokens that are still on the device, [samples] int64: what `score` would return, once `outgoing`
        has come and the tokens are known."""
        own = tokens.index_select(0, moved(torch.tensor(self.indices), tokens.device)).clamp(min=0)
        ids, values = (outgoing.add(part) for part in likeliest(self.logits, own, max(self.tops)))

        def scored(known: list[int]) -> RowLogprobs:
            found = Logprobs(outgoing.taken(ids).astype("<u4"), outgoing.taken(values))
            return self._by_row(rows, known, found)

        return scored

    def _by_row(self, rows: Sequence[int], tokens: Sequence[int], scored: Logprobs) -> RowLogprobs:
        return [
            (rows[index], scored.part(at, at + 1, top))
            for at, (index, top) in enumerate(zip(self.indices, self.tops, strict=True))
            if tokens[index] >= 0
        ]


def score_prompts(
    logits_of: Callable[[Tensor], Tensor | None], hidden: Tensor, places: Sequence[Places], rows: Rows
) -> RowLogprobs:
    """Log probabilities of the prompt tokens that follow `places`, whose hidden states are `hidden`, in their order.

    The logits are made in pieces, so that they never take more than PIECE_ELEMENTS; a rank that gets none returns [].
    """
    following = [rows.tokens[place.row, place.first + 1 : place.first + place.length + 1] for place in places]
    own = torch.from_numpy(np.concatenate(following).astype(np.int64)).to(hidden.device)
    top = max(place.top for place in places)
    size = max(1, PIECE_ELEMENTS // rows.vocab_size)
    parts = []
    for start in range(0, len(own), size):
        logits = logits_of(hidden[start : start + size])
        if logits is not None:
            parts.append(logprobs_of(logits, own[start : start + size], top))
    if not parts:
        return []
    whole = Logprobs(np.concatenate([part.ids for part in parts]), np.concatenate([part.values for part in parts]))
    ends = np.cumsum([place.length for place in places]).tolist()
    return [
        (place.row, whole.part(end - place.length, end, place.top)) for place, end in zip(places, ends, strict=True)
    ]
