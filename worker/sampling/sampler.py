"""Chooses the next token of each sampled row.

Order, as in vLLM: the masks of grammars, rules over ids, penalties, temperature, min-p, top-k, top-p, then the draw.
The draw is Gumbel-max with noise keyed by (seed, sequence, position, token id): neither the other rows of the batch,
nor preemption, nor a move to another replica changes it. Greedy rows skip temperature and what follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.constraints import TokenRules
from ...core.sampling import SamplingParams
from ...kernels.launch import takes
from ...kernels.penalties import penalize
from ...kernels.sample import Draws, sample
from ..plan import NO_RULES, NONE_ALLOWED, NOT_A_NUMBER
from .draws import DrawTable, HostDraws, draws_of
from .filters import least_kept, min_p_floor
from .masks import apply_masks
from .noise import gumbel, gumbel_for_all
from .penalties import PenaltyCounts
from .rules import RowRules, apply_rules

Int64 = npt.NDArray[np.int64]
LEAST_TEMPERATURE = 1e-6  # below it scores would leave float32; it is as good as greedy by far


class Sampler:
    """Sampling parameters of the live rows, and the penalty counts and rules of those which have them."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size = vocab_size
        self.device = device
        self._params: dict[int, SamplingParams] = {}
        self._sequences: dict[int, int] = {}
        self._table = DrawTable()
        self._counts: dict[int, PenaltyCounts] = {}
        self._rules: dict[int, RowRules] = {}
        self._drawing: set[int] = set()  # rows that are not greedy

    @property
    def looks_back(self) -> bool:
        """Whether any row's next token depends on its output so far: else nobody need tell of it."""
        return bool(self._counts or self._rules)

    def add(
        self,
        row: int,
        params: SamplingParams,
        tokens: Int64,
        prompt_tokens: int,
        sequence: int = 0,
        rules: TokenRules = NO_RULES,
    ) -> None:
        """A row enters with the tokens known so far."""
        self._params[row] = params
        self._sequences[row] = sequence
        self._table.set(row, params, sequence)
        if not params.greedy:
            self._drawing.add(row)
        if rules:
            self._rules[row] = RowRules(rules, self.vocab_size, tokens[prompt_tokens:])
        if params.penalized:
            self._counts[row] = PenaltyCounts(self.vocab_size, self.device)
            self._counts[row].count(tokens, prompt_tokens)

    def append(self, row: int, token: int) -> None:
        """A row goes on with an output token."""
        counts, rules = self._counts.get(row), self._rules.get(row)
        if counts is not None:
            counts.count(np.array([token], np.int64), 0)
        if rules is not None:
            rules.append(token)

    def append_drawn(self, row: int, token: Tensor) -> None:
        """The same of a token that only the device knows, [1] int64. Waits for it where rules look at it."""
        counts, rules = self._counts.get(row), self._rules.get(row)
        if counts is not None:
            counts.count_drawn(token)
        if rules is not None:
            rules.append(int(token) if rules.reads_output else 0)

    def free(self, row: int) -> None:
        """A row leaves."""
        del self._params[row], self._sequences[row]
        self._counts.pop(row, None)
        self._rules.pop(row, None)
        self._drawing.discard(row)

    def sample(
        self, logits: Tensor, rows: list[int], positions: list[int], masks: Sequence[tuple[int, bytes]] = ()
    ) -> list[int]:
        """One token id for each of `rows`, which will stand at `positions`; or why there is none (worker/plan.py).

        logits: [rows, vocabulary] float32, which may be changed in place. masks: (row, packed bits), for some rows.
        Raises ValueError for a mask of a row that is not there, or of a wrong length.
        """
        if takes(logits):
            draws = self.draws(rows, positions)
            moved = draws_of(*(torch.from_numpy(array).to(self.device) for array in draws[:3]))
            chosen: list[int] = self.choose(logits, rows, moved, filtered=draws.filtered, masks=masks).tolist()
            return chosen
        self._constrain(logits, rows, masks)
        drawn = [index for index, row in enumerate(rows) if row in self._drawing] if self._drawing else []
        if len(drawn) == len(rows):
            return self._draw(logits, rows, positions)
        tokens = _likeliest(logits)
        if drawn:
            chosen = self._draw(logits[drawn], [rows[index] for index in drawn], [positions[index] for index in drawn])
            for index, token in zip(drawn, chosen, strict=True):
                tokens[index] = token
        return tokens

    def draws(self, rows: list[int], positions: list[int]) -> HostDraws:
        """How `rows` draw the tokens that will stand at `positions`, for `choose`."""
        return self._table.take(rows, positions)

    def choose(
        self, logits: Tensor, rows: list[int], draws: Draws, *, filtered: bool, masks: Sequence[tuple[int, bytes]] = ()
    ) -> Tensor:
        """As `sample`, greedy rows and others in the same launches, and the tokens stay where they are: [rows] int64.
        The host waits for nothing."""
        logits = logits.contiguous()
        self._constrain(logits, rows, masks)
        best = logits.amax(-1)
        return _with_failures(sample(logits, draws, filtered=filtered, best=best), best)

    def _constrain(self, logits: Tensor, rows: list[int], masks: Sequence[tuple[int, bytes]]) -> None:
        """Masks, rules and penalties, in place."""
        if masks:
            apply_masks(logits, [rows.index(row) for row, _ in masks], [mask for _, mask in masks])
        if self._rules:
            ruled = [index for index, row in enumerate(rows) if row in self._rules]
            apply_rules(logits, ruled, [self._rules[rows[index]] for index in ruled])
        if self._counts:
            counted = [(index, row) for index, row in enumerate(rows) if row in self._counts]
            penalize(logits, [self._counts[row].penalty(index, self._params[row]) for index, row in counted])

    def _draw(self, logits: Tensor, rows: list[int], positions: list[int]) -> list[int]:
        """Draws for rows that are not greedy."""
        params = [self._params[row] for row in rows]
        sequences = self._integers([self._sequences[row] for row in rows])
        temperatures = self._floats([max(row.temperature, LEAST_TEMPERATURE) for row in params]).unsqueeze(-1)
        best = logits.amax(-1)
        scores = (logits - best.unsqueeze(-1)).div_(temperatures)
        noise = (self._seeds(params), sequences, self._integers(positions))
        floor = self._floor(scores, params)
        if floor is None:
            return _checked(_argmax(gumbel_for_all(*noise, self.vocab_size).add_(scores)), best)
        out = scores < floor
        kept = out.numel() - int(out.sum())
        if kept * 4 >= out.numel():  # each token by itself costs as much as the four of a block
            noisy = gumbel_for_all(*noise, self.vocab_size).add_(scores).masked_fill_(out, -torch.inf)
            return _checked(_argmax(noisy), best)
        at, token_ids = out.logical_not_().nonzero(as_tuple=True)
        noisy = gumbel(noise[0][at], noise[1][at], noise[2][at], token_ids).add_(scores[at, token_ids])
        return _checked(_argmax(torch.full_like(scores, -torch.inf).index_put_((at, token_ids), noisy)), best)

    def _floor(self, scores: Tensor, params: list[SamplingParams]) -> Tensor | None:
        """The least score that each row's filters keep, [rows, 1]; None when no row has filters."""
        sorting = [index for index, row in enumerate(params) if row.top_k > 0 or row.top_p < 1.0]
        if not sorting and all(row.min_p == 0.0 for row in params):
            return None
        min_p = self._floats([row.min_p for row in params])
        floor = min_p_floor(scores, min_p)
        if sorting:
            top_k = self._integers([params[index].top_k for index in sorting])
            top_p = self._floats([params[index].top_p for index in sorting])
            floor[sorting] = least_kept(scores[sorting], min_p[sorting], top_k, top_p)
        return floor

    def _floats(self, values: list[float] | list[list[float]]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def _integers(self, values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _seeds(self, params: list[SamplingParams]) -> Tensor:
        """64-bit seeds as the int64 of the same bits."""
        return self._integers([row.seed - (1 << 64) if row.seed >= 1 << 63 else row.seed for row in params])


def _argmax(scores: Tensor) -> Tensor:
    """Index of the highest score of each row, the first of equals; NaN counts as highest. On CPU numpy is many times
    faster at it."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmax(-1))
    return scores.argmax(-1)


def _checked(tokens: Tensor, best: Tensor) -> list[int]:
    """The tokens, or in place of each why there is none, by the highest logit of its row, [rows]."""
    fine = np.isfinite(best.numpy()).all() if best.device.type == "cpu" else False  # as above
    chosen: list[int] = (tokens if fine else _with_failures(tokens, best)).tolist()
    return chosen


def _with_failures(tokens: Tensor, best: Tensor) -> Tensor:
    return torch.where(best.isfinite(), tokens, torch.where(best == -torch.inf, NONE_ALLOWED, NOT_A_NUMBER))


def _likeliest(logits: Tensor) -> list[int]:
    """The likeliest token of each row, or why there is none."""
    if logits.device.type == "cpu":
        scores = logits.numpy()
        places = scores.argmax(-1)
        best = scores[np.arange(len(scores)), places]
        if np.isfinite(best).all():
            chosen: list[int] = places.tolist()
            return chosen
        return _checked(torch.from_numpy(places), torch.from_numpy(best))
    tokens = logits.argmax(-1)
    return _checked(tokens, logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
