"""Repetition, frequency and presence penalties, over the tokens that each row has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .launch import expect_contiguous, jit, moved, takes, tl, triton

BLOCK = 1024
FIELDS = 5  # int64 words of one penalty: row, two addresses, and three float32 in the last two


class Penalty(NamedTuple):
    """What becomes of row `row` of the logits. seen: [vocabulary] bool, the tokens of prompt and output; output:
    [vocabulary] float32, how often each is in the output; both contiguous, on the logits' device."""

    row: int
    seen: Tensor
    output: Tensor
    repetition: float
    frequency: float
    presence: float


def penalize(logits: Tensor, penalties: Sequence[Penalty]) -> None:
    """Changes `logits` ([rows, vocabulary] float32, contiguous) in place; no row has two penalties.

    As Hugging Face and vLLM do: repetition first (positive logits divided, others multiplied, for tokens of prompt and
    output), then `frequency * count + presence` subtracted for tokens of the output.
    """
    if takes(logits):
        _launch(logits, penalties)
        return
    for row, seen, output, repetition, frequency, presence in penalties:
        own = logits[row]
        repeated = torch.where(own > 0, own / repetition, own * repetition)
        own.copy_(torch.where(seen, repeated, own))
        own.sub_(output * frequency).sub_((output > 0) * presence)


def _launch(logits: Tensor, penalties: Sequence[Penalty]) -> None:
    if not penalties:
        return
    expect_contiguous(logits=logits)
    host = np.empty((len(penalties), FIELDS), np.int64)
    for words, (row, seen, output, *strengths) in zip(host, penalties, strict=True):
        expect_contiguous(seen=seen, output=output)
        words[:3] = row, seen.data_ptr(), output.data_ptr()
        words[3:].view(np.float32)[:3] = strengths
    places = moved(torch.from_numpy(host), logits.device)
    vocab_size = logits.shape[-1]
    penalize_kernel[(len(penalties), triton.cdiv(vocab_size, BLOCK))](
        logits, places, places.view(torch.float32), vocab_size, BLOCK=BLOCK
    )


@jit
def penalize_kernel(
    logits: tl.tensor, places: tl.tensor, strengths: tl.tensor, vocab_size: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """One block of one penalized row."""
    item = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < vocab_size
    into = logits + tl.load(places + item * 5) * vocab_size + at
    seen = tl.load(tl.load(places + item * 5 + 1).to(tl.pointer_type(tl.int8)) + at, mask=inside, other=0)
    output = tl.load(tl.load(places + item * 5 + 2).to(tl.pointer_type(tl.float32)) + at, mask=inside, other=0.0)
    strength = strengths + item * 10 + 6
    repetition, frequency, presence = tl.load(strength), tl.load(strength + 1), tl.load(strength + 2)
    x = tl.load(into, mask=inside, other=0.0)
    x = tl.where(seen != 0, tl.where(x > 0, x / repetition, x * repetition), x)
    x = x - output * frequency - tl.where(output > 0, presence, 0.0)
    tl.store(into, x, mask=inside)
