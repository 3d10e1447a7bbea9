"""How fast a replica prefills, as far as its measurements can be believed.

Taken at face value, a replica that measured badly once (a few short prompts on a busy machine) would look slow, get no
cold prompt any more, and so never measure again: all prefixes would gather on the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from .figures import DEFAULT_PREFILL_RATE, Figures

# Replicas that differ by less than this factor are alike: short prompts and noisy neighbours do as much.
NOISE = 2.0
# Computed prompt tokens after which a replica's own rate counts half, should it be far off.
EVIDENCE_TOKENS = 20_000


def common_rate(replicas: Sequence[Figures]) -> float:
    """Tokens a second of the replicas together, each counting by what it has computed so far."""
    measured = [figures for figures in replicas if figures.prefill_rate > 0]
    if not measured:
        return DEFAULT_PREFILL_RATE
    weights = [1 + figures.computed_tokens for figures in measured]
    weighted = sum(weight * figures.prefill_rate for weight, figures in zip(weights, measured, strict=True))
    return weighted / sum(weights)


def believed_rate(figures: Figures, common: float) -> float:
    """The replica's rate: the common one unless its own is far off, and then by the weight of its evidence."""
    ratio = figures.prefill_rate / common
    if ratio == 0 or 1 / NOISE <= ratio <= NOISE:
        return common
    weight = figures.computed_tokens / (figures.computed_tokens + EVIDENCE_TOKENS)
    return float(common * ratio**weight)
