"""What attention does with one block of keys and values: the running softmax of FlashAttention-2 (Dao, 2023)."""

from __future__ import annotations

from .launch import constant, jit, tl

LOG2_E = constant(1.4426950408889634)


@jit
def attend_block(
    q: tl.tensor, keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor, place: tl.tensor,
    known: tl.tensor, seen: tl.tensor, at: tl.tensor, inside: tl.tensor, best: tl.tensor, total: tl.tensor,
    sums: tl.tensor, scale: tl.tensor, softcap: tl.tensor,
    DIM: tl.constexpr, SOFTCAP: tl.constexpr, NARROW: tl.constexpr, PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """The highest score, the sum of weights and the weighted sum of values of each row of `q`, with this block in.

    place: [block], where each token's key and value lie, in heads; those that are not `known` are not read. seen:
    [rows or 1, block], which of them a row of `q` sees, where it is MASKED; else every row sees all of them. Scores are
    in units of log 2; `scale` is above zero.
    """
    k = tl.load(keys + place[:, None] * DIM + at[None, :], mask=known[:, None] & inside[None, :], other=0.0)
    scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision=PRECISION)
    if NARROW:
        scores *= tl.load(key_scales + place, mask=known, other=0.0)[None, :]
    # One multiplication brings scores to units of log 2, where they are not capped; it becomes part of the subtraction.
    gain = scale * LOG2_E
    if SOFTCAP:
        scores = softcap * (2.0 * tl.sigmoid(2.0 * scores * scale / softcap) - 1.0)
        gain = LOG2_E
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    higher = tl.maximum(best, tl.max(scores, 1) * gain)
    base = higher
    if MASKED:
        # A row may see nothing of the first blocks, which lie before its window.
        base = tl.where(higher == float("-inf"), 0.0, higher)
    shrink = tl.exp2(best - base)
    weight = tl.exp2(scores * gain - base[:, None])
    total = total * shrink + tl.sum(weight, 1)
    if NARROW:
        weight *= tl.load(value_scales + place, mask=known, other=0.0)[None, :]
    v = tl.load(values + place[:, None] * DIM + at[None, :], mask=known[:, None] & inside[None, :], other=0.0)
    sums = tl.dot(weight.to(q.dtype), v.to(q.dtype), sums * shrink[:, None], input_precision=PRECISION)
    return higher, total, sums
