"""min-p, top-k and top-p, in that order, on candidates sorted from the likeliest down.

Top-p counts the mass of what min-p and top-k left, and always keeps the likeliest token. Instead of sorting whole
vocabularies, the likeliest few are taken first, and more only when they do not hold enough mass.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_CANDIDATES = 256


def filter_candidates(logits: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates that survive: (scores, token ids), each [rows, candidates], what is filtered out at -inf.

    logits: [rows, vocabulary] float32 after temperature. min_p: [rows] float32, 0 for none; top_k: [rows] int64, 0 for
    none; top_p: [rows] float32, 1 for none.
    """
    vocab_size = logits.shape[-1]
    keep = torch.where(top_k == 0, vocab_size, top_k.clamp(max=vocab_size))
    limit = min(vocab_size, max(FIRST_CANDIDATES, int(torch.where(top_k > 0, keep, 0).max())))
    while True:
        scores, token_ids = logits.topk(limit, -1)
        kept, complete = _filter(scores, logits, min_p, keep, top_p)
        if limit == vocab_size or bool(complete.all()):
            return kept, token_ids
        limit = min(vocab_size, limit * 8)


def min_p_floor(logits: Tensor, min_p: Tensor) -> Tensor:
    """The least logit that min-p keeps, [rows, 1]: its probability is min_p times the likeliest one's."""
    return logits.amax(-1, keepdim=True) + min_p.log().unsqueeze(-1)


def _filter(scores: Tensor, logits: Tensor, min_p: Tensor, keep: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Filters sorted `scores`; also tells, for each row, whether nothing beyond them could have survived."""
    limit = scores.shape[-1]
    floor = scores[:, :1] + min_p.log().unsqueeze(-1)
    ranks = torch.arange(limit, device=scores.device)
    alive = (scores >= floor) & (ranks < keep.unsqueeze(-1))
    # Mass of everything that min-p and top-k keep, beyond the candidates too.
    unlimited = (keep > limit).unsqueeze(-1)
    whole = torch.logsumexp(logits.masked_fill(logits < floor, -torch.inf), -1, keepdim=True)
    among = torch.logsumexp(scores.masked_fill(~alive, -torch.inf), -1, keepdim=True)
    mass = (scores - torch.where(unlimited, whole, among)).exp().masked_fill_(~alive, 0.0)
    before = mass.cumsum(-1).sub_(mass)
    alive &= (before < top_p.unsqueeze(-1)) | (ranks == 0)
    complete = (keep <= limit) | ~alive[:, -1]
    return scores.masked_fill(~alive, -torch.inf), complete
