"""Which tokens may come: biases, allowed ids, bad words and least lengths, over the logits of all such rows at once.

As in vLLM a bad word counts only where all of it would be output: one that begins in the prompt may be completed. An id
that is both allowed and banned is banned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.constraints import TokenRules
from ...kernels.launch import moved
from .masks import apply_masks, mask_bytes

Int64 = npt.NDArray[np.int64]


class RowRules:
    """The rules of one row, and what of its output they depend on."""

    def __init__(self, rules: TokenRules, vocab_size: int, output: Int64) -> None:
        """`output` are the output tokens known so far, those delivered elsewhere included."""
        self.biased = np.array([token for token, _ in rules.logit_bias], np.int64)
        self.bias = np.array([value for _, value in rules.logit_bias], np.float32)
        self.mask = _packed(rules.allowed, vocab_size) if rules.allowed else None
        self._always = [word[0] for word in rules.bad_words if len(word) == 1]
        self._after: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for word in rules.bad_words:
            if len(word) > 1:
                self._after[word[:-1]].append(word[-1])
        self._lengths = sorted({len(beginning) for beginning in self._after})
        self._ends = list(rules.end_token_ids)
        self._ends_from = rules.min_new_tokens
        self._count = len(output)
        self._tail = output[-self._lengths[-1] :].tolist() if self._lengths else []

    @property
    def reads_output(self) -> bool:
        """Whether it matters which tokens come, and not only how many."""
        return bool(self._lengths)

    def append(self, token: int) -> None:
        """The row goes on with an output token."""
        self._count += 1
        if self._lengths:
            self._tail.append(token)
            del self._tail[: -self._lengths[-1]]

    def banned(self) -> list[int]:
        """Ids that must not come next, perhaps more than once."""
        banned = self._always
        if self._count < self._ends_from:
            banned = banned + self._ends
        for length in self._lengths:
            if length <= len(self._tail) and (after := self._after.get(tuple(self._tail[-length:]))):
                banned = banned + after
        return banned


def apply_rules(logits: Tensor, rows: Sequence[int], rules: Sequence[RowRules]) -> None:
    """Changes `logits` ([samples, vocabulary] float32) in place, those of index `rows[i]` by `rules[i]`."""
    masked = [(row, rule.mask) for row, rule in zip(rows, rules, strict=True) if rule.mask is not None]
    if masked:
        apply_masks(logits, [row for row, _ in masked], [mask for _, mask in masked])
    biased = [index for index, rule in enumerate(rules) if len(rule.biased)]
    if biased:
        at = _places([rows[index] for index in biased], [rules[index].biased for index in biased], logits.device)
        values = moved(torch.from_numpy(np.concatenate([rules[index].bias for index in biased])), logits.device)
        logits.index_put_(at, values, accumulate=True)
    banned = [np.array(rule.banned(), np.int64) for rule in rules]
    if any(map(len, banned)):
        logits.index_put_(_places(rows, banned, logits.device), torch.full((), -torch.inf, device=logits.device))


def _places(rows: Sequence[int], ids: list[Int64], device: torch.device) -> tuple[Tensor, Tensor]:
    at = np.stack((np.repeat(np.array(rows, np.int64), [len(part) for part in ids]), np.concatenate(ids)))
    row, column = moved(torch.from_numpy(at), device)
    return row, column


def _packed(allowed: Sequence[int], vocab_size: int) -> bytes:
    bits = np.zeros(mask_bytes(vocab_size) * 8, np.bool_)
    bits[list(allowed)] = True
    return np.packbits(bits, bitorder="little").tobytes()
