"""Embedding over a vocabulary that is split over ranks: what a rank does not hold is zero, so that the sum is right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .launch import expect_contiguous, jit, takes, tl, triton

BLOCK = 1024


def vocab_embedding(token_ids: Tensor, table: Tensor, first: int) -> Tensor:
    """Rows of `table` for the ids that it holds, zeros for others.

    token_ids: [tokens] int64; table: [part of the vocabulary, hidden], which begins with id `first`. Returns
    [tokens, hidden].
    """
    if takes(table):
        return _launch(token_ids, table, first)
    local = token_ids - first
    foreign = (local < 0) | (local >= table.shape[0])
    return F.embedding(local.masked_fill(foreign, 0), table).masked_fill_(foreign.unsqueeze(-1), 0)


def _launch(token_ids: Tensor, table: Tensor, first: int) -> Tensor:
    expect_contiguous(token_ids=token_ids, table=table)
    tokens, (held, hidden) = token_ids.shape[0], table.shape
    out = torch.empty((tokens, hidden), dtype=table.dtype, device=table.device)
    if tokens:
        vocab_embedding_kernel[(tokens, triton.cdiv(hidden, BLOCK))](
            token_ids, table, out, first, held, HIDDEN=hidden, BLOCK=BLOCK
        )
    return out


@jit
def vocab_embedding_kernel(
    token_ids: tl.tensor, table: tl.tensor, out: tl.tensor, first: tl.tensor, held: tl.tensor,
    HIDDEN: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    local = tl.load(token_ids + token) - first
    here = (local >= 0) & (local < held)
    row = tl.load(table + local * HIDDEN + at, mask=(at < HIDDEN) & here, other=0.0)
    tl.store(out + token * HIDDEN + at, row, mask=at < HIDDEN)
