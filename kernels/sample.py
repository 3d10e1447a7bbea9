"""Draws each row's next token on the device, without a word from the host.

min-p, top-k and top-p (in that order) each become the least logit that they keep. It is found without sorting, by a
search over the ordered bit patterns of float32 that looks at eight of them in one pass. Equal logits stand or fall
together. The draw is Gumbel-max with noise from Philox4x32-10, keyed by (seed, position, sequence, token id): it
depends on nothing else in the batch. Temperature 0 is the likeliest token, the first of equals.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .launch import constant, expect_contiguous, jit, power_of_two, takes, tl, triton
from .philox import philox

BLOCK = 2048  # logits at a time
SEARCH_BLOCK = 1024
LEAST_TEMPERATURE = 1e-6
_LOW = 0xFFFFFFFF
MULTIPLIER_0 = constant(0xD2511F53)
MULTIPLIER_1 = constant(0xCD9E8D57)
WEYL_0 = constant(0x9E3779B9)
WEYL_1 = constant(0xBB67AE85)
SIGN = constant(0x80000000)
AHEAD = constant(8)  # bit patterns that one pass of the search looks at


class Draws(NamedTuple):
    """How each row draws; every tensor is [rows] on the logits' device.

    temperature, top_p, min_p: float32; top_k: int32, 0 for all; seed: int64, the bits of 64; position: int64, where the
    drawn token will stand; sequence: int64, which of a request's sequences.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seed: Tensor
    position: Tensor
    sequence: Tensor


def sample(logits: Tensor, draws: Draws, *, filtered: bool, best: Tensor | None = None) -> Tensor:
    """One token id for each row, [rows] int64. logits: [rows, vocabulary] float32, contiguous, unchanged.

    `filtered` says whether any row has a min-p, top-k or top-p: without one the search is not even started. `best`:
    each row's highest logit, [rows] float32, where it is known already.
    """
    if takes(logits):
        return _launch(logits, draws, filtered, logits.amax(-1) if best is None else best)
    return sample_reference(logits, draws)


def sample_reference(logits: Tensor, draws: Draws) -> Tensor:
    """The same by sorting, and with torch's Philox."""
    temperature = draws.temperature.clamp(min=LEAST_TEMPERATURE).unsqueeze(-1)
    vocab_size = logits.shape[-1]
    scores = (logits - logits.amax(-1, keepdim=True)) / temperature
    ordered = scores.sort(-1, descending=True).values
    keep = torch.where(draws.top_k == 0, vocab_size, draws.top_k.clamp(max=vocab_size)).long().unsqueeze(-1)
    floor = torch.maximum(draws.min_p.log().unsqueeze(-1), ordered.gather(-1, keep - 1))
    weights = ordered.exp().masked_fill(ordered < floor, 0.0)
    mass = weights.cumsum(-1)
    nucleus = (mass - weights < draws.top_p.unsqueeze(-1) * mass[:, -1:]).sum(-1, keepdim=True).clamp(min=1)
    nucleus = torch.where(draws.top_p.unsqueeze(-1) < 1.0, nucleus, vocab_size)
    floor = torch.maximum(floor, ordered.gather(-1, nucleus - 1))
    noisy = (scores + gumbel(draws, vocab_size)).masked_fill(scores < floor, -torch.inf)
    return torch.where(draws.temperature == 0, logits.argmax(-1), noisy.argmax(-1))


def gumbel(draws: Draws, vocab_size: int) -> Tensor:
    """Standard Gumbel noise of every token, [rows, vocab_size] float32: word id % 4 of Philox block id // 4."""
    blocks = torch.arange(-(-vocab_size // 4), device=draws.seed.device).unsqueeze(0)
    position, sequence, seed = (part.unsqueeze(-1) for part in (draws.position, draws.sequence, draws.seed))
    words = philox((blocks, position, sequence, torch.zeros_like(position)), (seed & _LOW, (seed >> 32) & _LOW))
    flat = torch.stack(words, -1).flatten(1)[:, :vocab_size]
    uniform = ((flat.float() + 0.5) * 2.0**-32).clamp(max=1.0 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def _launch(logits: Tensor, draws: Draws, filtered: bool, best: Tensor) -> Tensor:
    expect_contiguous(logits=logits, best=best, **draws._asdict())
    rows, vocab_size = logits.shape
    device = logits.device
    tokens = torch.empty(rows, dtype=torch.int64, device=device)
    if not rows:
        return tokens
    floors = torch.empty(rows, dtype=torch.int32, device=device)
    if filtered:
        floor_kernel[(rows,)](
            logits, draws.temperature, draws.top_k, draws.top_p, draws.min_p, best, floors, vocab_size,
            BLOCK=SEARCH_BLOCK, LEAST_TEMPERATURE=LEAST_TEMPERATURE, num_warps=8,
        )  # fmt: skip
    parts = triton.cdiv(vocab_size, BLOCK)
    scores = torch.empty((rows, parts), dtype=torch.float32, device=device)
    places = torch.empty((rows, parts), dtype=torch.int32, device=device)
    draw_kernel[(rows, parts)](
        logits, draws.temperature, draws.seed, draws.position, draws.sequence, best, floors, scores, places,
        vocab_size, FILTERED=filtered, BLOCK=BLOCK, LEAST_TEMPERATURE=LEAST_TEMPERATURE,
    )  # fmt: skip
    choose_kernel[(rows,)](scores, places, tokens, parts, BLOCK=power_of_two(parts), num_warps=1)
    return tokens


@jit
def key_of(x: tl.tensor) -> tl.tensor:
    """int32 that is ordered as the float32 is; the two zeros are one."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def place_of(x: tl.tensor) -> tl.tensor:
    """The same from 0 on, uint32: differences of two of them fit, too."""
    return key_of(x).to(tl.uint32, bitcast=True) ^ SIGN


@jit
def floor_kernel(
    logits: tl.tensor, temperatures: tl.tensor, top_ks: tl.tensor, top_ps: tl.tensor, min_ps: tl.tensor,
    bests: tl.tensor, floors: tl.tensor, vocab_size: tl.tensor,
    BLOCK: tl.constexpr, LEAST_TEMPERATURE: tl.constexpr,
) -> None:  # fmt: skip
    """One program a row: the key of the least logit that its filters keep."""
    row = tl.program_id(0).to(tl.int64)
    source = logits + row * vocab_size
    best = tl.load(bests + row)
    floor = tl.full((), 0, tl.uint32)
    temperature = tl.maximum(tl.load(temperatures + row), LEAST_TEMPERATURE)
    top_k = tl.load(top_ks + row)
    top_p = tl.load(top_ps + row)
    min_p = tl.load(min_ps + row)
    if min_p > 0.0:
        floor = place_of(best + temperature * tl.log(min_p))
    top = place_of(best)
    if (top_k > 0) & (top_k < vocab_size):
        floor = _least_kept(source, vocab_size, floor, top, top_k.to(tl.float32), best, temperature, False, BLOCK)
    if top_p < 1.0:
        mass = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, vocab_size, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(source + at, mask=at < vocab_size, other=float("-inf"))
            kept = (place_of(x) >= floor) & (at < vocab_size)
            mass += tl.where(kept, tl.exp((x - best) / temperature), 0.0)
        wanted = top_p * tl.sum(mass, 0)
        floor = _least_kept(source, vocab_size, floor, top, wanted, best, temperature, True, BLOCK)
    tl.store(floors + row, (floor ^ SIGN).to(tl.int32, bitcast=True))


@jit
def _least_kept(
    source: tl.tensor, vocab_size: tl.tensor, floor: tl.tensor, top: tl.tensor, wanted: tl.tensor, best: tl.tensor,
    temperature: tl.tensor, WEIGHED: tl.constexpr, BLOCK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The greatest place from which on, up to `top`, there is as much as `wanted`: of logits, which float32 counts as
    they are, or of their weight. At least `floor`, below which nothing counts."""
    steps = tl.arange(0, AHEAD).to(tl.uint32)
    low, high = floor, top + 1
    # There is enough from `low` on, and not from `high`; where logits are no numbers, one may come past the other.
    while (low < high) & (high - low > 1):
        step = tl.maximum((high - low) // AHEAD, 1)
        tried = low + steps * step
        found = tl.zeros((AHEAD, BLOCK), tl.float32)  # lanes are added up once a pass, not once a block
        for start in range(0, vocab_size, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(source + at, mask=at < vocab_size, other=float("-inf"))
            place = place_of(x)
            above = (place[None, :] >= tried[:, None]) & ((place >= floor) & (at < vocab_size))[None, :]
            if WEIGHED:
                found += tl.where(above, tl.exp((x - best) / temperature)[None, :], 0.0)
            else:
                found += above.to(tl.float32)
        enough = (tl.sum(found, 1) >= wanted) & (tried < high)
        last = tl.maximum(tl.sum(enough.to(tl.int32), 0) - 1, 0)
        low += last.to(tl.uint32) * step
        high = tl.where(last == AHEAD - 1, high, tl.minimum(high, low + step))
    return low


@jit
def draw_kernel(
    logits: tl.tensor, temperatures: tl.tensor, seeds: tl.tensor, positions: tl.tensor, sequences: tl.tensor,
    bests: tl.tensor, floors: tl.tensor, scores: tl.tensor, places: tl.tensor, vocab_size: tl.tensor,
    FILTERED: tl.constexpr, BLOCK: tl.constexpr, LEAST_TEMPERATURE: tl.constexpr,
) -> None:  # fmt: skip
    """One program for each row and block of the vocabulary: its best score with noise, and where that is."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * vocab_size + at, mask=at < vocab_size, other=float("-inf"))
    temperature = tl.load(temperatures + row)
    score = x
    if temperature > 0.0:
        seed = tl.load(seeds + row)
        words = part * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
        noise = _gumbel(words, seed, tl.load(positions + row), tl.load(sequences + row))
        score = (x - tl.load(bests + row)) / tl.maximum(temperature, LEAST_TEMPERATURE) + noise
        score = tl.where(at < vocab_size, score, float("-inf"))
        if FILTERED:
            score = tl.where(key_of(x) >= tl.load(floors + row), score, float("-inf"))
    best = tl.max(score, 0)
    here = row * tl.num_programs(1) + part
    tl.store(scores + here, best)
    tl.store(places + here, tl.min(tl.where(score == best, at, vocab_size), 0))


@jit
def choose_kernel(
    scores: tl.tensor, places: tl.tensor, tokens: tl.tensor, parts: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """The best of a row's blocks, the first of equals."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    score = tl.load(scores + row * parts + at, mask=at < parts, other=float("-inf"))
    place = tl.load(places + row * parts + at, mask=at < parts, other=2147483647)
    first = tl.min(tl.where((score == tl.max(score, 0)) & (at < parts), place, 2147483647), 0)
    tl.store(tokens + row, first.to(tl.int64))


@jit
def _gumbel(blocks: tl.tensor, seed: tl.tensor, position: tl.tensor, sequence: tl.tensor) -> tl.tensor:
    """Noise of four tokens for each of `blocks`, in the tokens' order."""
    c0 = blocks.to(tl.uint32)
    zero = c0 * 0
    c1, c2, c3 = zero + position.to(tl.uint32), zero + sequence.to(tl.uint32), zero
    k0, k1 = zero + seed.to(tl.uint32), zero + (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high_0, low_0 = tl.umulhi(c0, zero + MULTIPLIER_0), c0 * MULTIPLIER_0
        high_1, low_1 = tl.umulhi(c2, zero + MULTIPLIER_1), c2 * MULTIPLIER_1
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0 += WEYL_0
        k1 += WEYL_1
    words = tl.interleave(tl.interleave(c0, c2), tl.interleave(c1, c3))
    uniform = tl.minimum((words.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 1.0 - 5.9604644775390625e-08)
    # log1p(-u): the series where 1 - u would round away what matters most, since big noise wins.
    near = -uniform * (1.0 + uniform * (0.5 + uniform * 0.3333333333333333))
    return -tl.log(-tl.where(uniform < 1e-3, near, tl.log(1.0 - uniform)))
