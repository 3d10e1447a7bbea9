"""Gumbel noise for each (seed, sequence, position, token): a draw depends on these four and on nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.philox import philox

_LOW = 0xFFFFFFFF


def gumbel(seeds: Tensor, sequences: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise, float32.

    seeds: int64 (the bits of a 64-bit seed), sequences: int64 (which of the request's, below 2^32), positions: int64
    (place of the drawn token in its sequence), token_ids: int64, all of one shape, which is the result's.

    Each Philox block gives the noise of four neighbouring tokens: word id % 4 of block id // 4.
    """
    words = _blocks(seeds, sequences, positions, token_ids >> 2)
    lane = token_ids & 3
    low, high = torch.where(lane == 0, words[0], words[1]), torch.where(lane == 2, words[2], words[3])
    return _to_gumbel(torch.where(lane < 2, low, high))


def gumbel_for_all(seeds: Tensor, sequences: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """The same for every token of the vocabulary, in order, at a quarter of the work.

    seeds, sequences, positions: [rows]. Returns [rows, vocab_size] float32.
    """
    blocks = torch.arange(-(-vocab_size // 4), device=seeds.device).unsqueeze(0)
    words = _blocks(seeds.unsqueeze(-1), sequences.unsqueeze(-1), positions.unsqueeze(-1), blocks)
    return _to_gumbel(torch.stack(words, -1).flatten(1)[:, :vocab_size])


def _blocks(
    seeds: Tensor, sequences: Tensor, positions: Tensor, blocks: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    zero = torch.zeros((1,) * blocks.dim(), dtype=torch.int64, device=seeds.device)
    return philox((blocks, positions, sequences, zero), (seeds & _LOW, (seeds >> 32) & _LOW))


def _to_gumbel(words: Tensor) -> Tensor:
    """-log(-log(1 - u)) with u = (word + 1/2) / 2^32.

    Big noise, which is what wins, comes from small u, where float32 is fine-grained; u is kept below 1, which it would
    round up to.
    """
    uniform = words.to(torch.float32).add_(0.5).mul_(2.0**-32).clamp_(max=1.0 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()
