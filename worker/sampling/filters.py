"""min-p, top-k and top-p, in that order, each as the least score that it keeps.

Top-p counts the mass of what min-p and top-k left, and always keeps the likeliest token. Equal scores stand or fall
together. Only values are sorted, never indices: numpy does that twenty times faster than torch on CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def min_p_floor(logits: Tensor, min_p: Tensor) -> Tensor:
    """The least logit that min-p keeps, [rows, 1]: its probability is min_p times the likeliest one's.

    logits: [rows, vocabulary] float32; min_p: [rows] float32, 0 for none, which keeps all.
    """
    return logits.amax(-1, keepdim=True) + min_p.log().unsqueeze(-1)


def least_kept(logits: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The least logit that all three filters keep, [rows, 1].

    logits: [rows, vocabulary] float32 after temperature; min_p as above; top_k: [rows] int64, 0 for none; top_p:
    [rows] float32, 1 for none.
    """
    ordered = _descending(logits)
    vocab_size = ordered.shape[-1]
    keep = torch.where(top_k == 0, vocab_size, top_k.clamp(max=vocab_size)).unsqueeze(-1)
    floor = torch.maximum(min_p_floor(logits, min_p), ordered.gather(-1, keep - 1))
    weights = (ordered - ordered[:, :1]).exp_().masked_fill_(ordered < floor, 0.0)
    mass = weights.cumsum(-1)
    before = mass - weights
    nucleus = (before < top_p.unsqueeze(-1) * mass[:, -1:]).sum(-1, keepdim=True).clamp_(min=1)
    # Without top-p nothing may go, not even what is too light to add to the sum.
    nucleus = torch.where(top_p.unsqueeze(-1) < 1.0, nucleus, vocab_size)
    return torch.maximum(floor, ordered.gather(-1, nucleus - 1))


def _descending(logits: Tensor) -> Tensor:
    if logits.device.type != "cpu":
        return logits.sort(-1, descending=True).values
    ordered = -logits.numpy()
    ordered.sort(-1)
    return torch.from_numpy(np.negative(ordered, out=ordered))
