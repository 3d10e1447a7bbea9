"""Chooses the next token of each sampled row.

Order, as in vLLM: penalties, temperature, min-p, top-k, top-p, then the draw. The draw is Gumbel-max with noise keyed
by (seed, position, token id): neither the other rows of the batch, nor preemption, nor a move to another replica
changes it. Greedy rows skip all but penalties.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.sampling import SamplingParams
from .filters import filter_candidates, min_p_floor
from .noise import gumbel, gumbel_for_all
from .penalties import PenaltyCounts, penalize

Int64 = npt.NDArray[np.int64]


class Sampler:
    """Sampling parameters of the live rows, and the penalty counts of those which need them."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size = vocab_size
        self.device = device
        self._params: dict[int, SamplingParams] = {}
        self._counts: dict[int, PenaltyCounts] = {}

    def add(self, row: int, params: SamplingParams, tokens: Int64, prompt_tokens: int) -> None:
        """A row enters with the tokens known so far."""
        self._params[row] = params
        if params.penalized:
            self._counts[row] = PenaltyCounts(self.vocab_size, self.device)
            self._counts[row].count(tokens, prompt_tokens)

    def append(self, row: int, token: int) -> None:
        """A row goes on with an output token."""
        counts = self._counts.get(row)
        if counts is not None:
            counts.count(np.array([token], np.int64), 0)

    def free(self, row: int) -> None:
        """A row leaves."""
        del self._params[row]
        self._counts.pop(row, None)

    def sample(self, logits: Tensor, rows: list[int], positions: list[int]) -> list[int]:
        """One token id for each of `rows`, which will stand at `positions`.

        logits: [rows, vocabulary] float32, which may be changed in place.
        """
        params = [self._params[row] for row in rows]
        penalized = [index for index, row in enumerate(rows) if row in self._counts]
        if penalized:
            part = logits[penalized]
            penalize(part, [self._counts[rows[index]] for index in penalized], [params[index] for index in penalized])
            logits[penalized] = part
        drawn = [index for index, row in enumerate(params) if not row.greedy]
        if not drawn:
            return _argmax(logits)
        if len(drawn) == len(rows):
            return self._draw(logits, params, positions)
        tokens = _argmax(logits)
        chosen = self._draw(logits[drawn], [params[index] for index in drawn], [positions[index] for index in drawn])
        for index, token in zip(drawn, chosen, strict=True):
            tokens[index] = token
        return tokens

    def _draw(self, logits: Tensor, params: list[SamplingParams], positions: list[int]) -> list[int]:
        """Draws for rows that are not greedy; those with a filter that needs sorting go apart from the others."""
        sorting = [row.top_k > 0 or row.top_p < 1.0 for row in params]
        tokens = [0] * len(params)
        for needs_sorting in (False, True):
            part = [index for index, needs in enumerate(sorting) if needs is needs_sorting]
            if not part:
                continue
            whole = len(part) == len(params)
            scaled = (logits if whole else logits[part]) / self._column([params[index].temperature for index in part])
            draw = self._draw_filtered if needs_sorting else self._draw_plain
            chosen = draw(scaled, [params[index] for index in part], [positions[index] for index in part])
            for index, token in zip(part, chosen, strict=True):
                tokens[index] = token
        return tokens

    def _draw_plain(self, logits: Tensor, params: list[SamplingParams], positions: list[int]) -> list[int]:
        noise = gumbel_for_all(self._seeds(params), self._integers(positions), self.vocab_size)
        if any(row.min_p > 0.0 for row in params):
            floor = min_p_floor(logits, self._column([row.min_p for row in params])[:, 0])
            logits = logits.masked_fill(logits < floor, -torch.inf)
        return _argmax(noise.add_(logits))

    def _draw_filtered(self, logits: Tensor, params: list[SamplingParams], positions: list[int]) -> list[int]:
        scores, token_ids = filter_candidates(
            logits,
            self._column([row.min_p for row in params])[:, 0],
            self._integers([row.top_k for row in params]),
            self._column([row.top_p for row in params])[:, 0],
        )
        noise = gumbel(self._seeds(params), self._integers(positions), token_ids)
        best = torch.tensor(_argmax(noise.add_(scores)), device=self.device).unsqueeze(-1)
        chosen: list[int] = token_ids.gather(-1, best)[:, 0].tolist()
        return chosen

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).unsqueeze(-1)

    def _integers(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _seeds(self, params: list[SamplingParams]) -> Tensor:
        """64-bit seeds as the int64 of the same bits."""
        return self._integers([row.seed - (1 << 64) if row.seed >= 1 << 63 else row.seed for row in params])


def _argmax(scores: Tensor) -> list[int]:
    """Index of the highest score of each row, the first of equals. On CPU numpy is many times faster at it."""
    if scores.device.type == "cpu":
        best: list[int] = scores.numpy().argmax(-1).tolist()
    else:
        best = scores.argmax(-1).tolist()
    return best
