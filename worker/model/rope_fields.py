"""Reads the rotary embedding of a configuration, of transformers 4 or 5."""

from __future__ import annotations

import math

from .fields import Fields
from .rope import LinearRope, Llama3Rope, LongRope, Rope, YarnRope

DESCRIPTIVE = {"finetuned": (True, False)}  # entries of a rope section that change nothing


def read_rope(
    fields: Fields,
    head_dim: int,
    context: int,
    *,
    original: int | None = None,
    partial: bool = False,
    theta: float = 10000.0,
) -> Rope:
    """`rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` of transformers 4.

    `context` is max_position_embeddings, `original` the default of what it was before stretching, `theta` that of
    rope_theta. With `partial`, less than the whole of each head may turn.
    """
    section = fields.inside("rope_parameters" if fields.get("rope_parameters") else "rope_scaling")
    theta = section.number("rope_theta") if "rope_theta" in section.values else fields.number("rope_theta", theta)
    share = 1.0
    if partial:
        share = section.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    if fields.get("original_max_position_embeddings") is not None:
        original = fields.count("original_max_position_embeddings")
    return read_scaling(section, theta, int(head_dim * share), context, original)


def read_scaling(section: Fields, theta: float, dims: int, context: int, original: int | None = None) -> Rope:
    """The rope that one section asks for. `original` is the context before stretching where it stands outside of it.

    Raises ConfigError for a kind that is not among READERS and for an entry that this kind has no use for.
    """
    if dims % 2 or dims < 2:
        raise section.refuse("partial_rotary_factor", f"must leave an even number of elements to turn, got {dims}")
    section.used |= {"type", "rope_theta"}
    kind = section.choice("rope_type", tuple(READERS), section.values.get("type") or "default")
    rope = READERS[kind](section, theta, dims, original or context, context)
    neutral = {name: (None, *DESCRIPTIVE.get(name, ())) for name in section.values}
    section.refuse_unused(neutral | {"partial_rotary_factor": (None, 1, 1.0)})
    return rope


def _plain(section: Fields, theta: float, dims: int, original: int, context: int) -> Rope:
    """No scaling."""
    return Rope(theta=theta, dims=dims)


def _dynamic(section: Fields, theta: float, dims: int, original: int, context: int) -> Rope:
    """NTK scaling by the length beyond max_position_embeddings, which no context that is served goes beyond."""
    section.number("factor")
    section.count("original_max_position_embeddings", original)
    return Rope(theta=theta, dims=dims)


def _linear(section: Fields, theta: float, dims: int, original: int, context: int) -> Rope:
    """All waves `factor` times as long: position interpolation."""
    return LinearRope(theta=theta, dims=dims, factor=section.number("factor"))


def _llama3(section: Fields, theta: float, dims: int, original: int, context: int) -> Rope:
    """Long waves stretched, short ones kept, those between blended: Llama 3.1."""
    low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
    if low >= high:
        raise section.refuse("low_freq_factor", f"= {low:g} must be below high_freq_factor = {high:g}")
    original = section.count("original_max_position_embeddings", original)
    return Llama3Rope(theta=theta, dims=dims, factor=section.number("factor"), low=low, high=high, original=original)


def _yarn(section: Fields, theta: float, dims: int, original: int, context: int) -> Rope:
    """YaRN, with `attention_factor`, `mscale`, `beta_fast`, `beta_slow` and `truncate`."""
    original = section.count("original_max_position_embeddings", original)
    factor = section.number("factor", context / original)
    above, below = section.number_or_none("mscale"), section.number_or_none("mscale_all_dim")
    usual = _mscale(factor, above) / _mscale(factor, below) if above and below else _mscale(factor, 1.0)
    return YarnRope(
        theta=theta,
        dims=dims,
        factor=factor,
        original=original,
        fast=section.number("beta_fast", 32.0),
        slow=section.number("beta_slow", 1.0),
        truncate=section.flag("truncate", True),
        attention_factor=section.number("attention_factor", usual),
    )


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(section: Fields, theta: float, dims: int, original: int, context: int) -> Rope:
    """LongRoPE: a factor for each frequency, short or long; also under its older name."""
    original = section.count("original_max_position_embeddings", original)
    factor = section.number("factor", context / original)
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return LongRope(
        theta=theta,
        dims=dims,
        original=original,
        short=section.numbers("short_factor", dims // 2),
        long=section.numbers("long_factor", dims // 2),
        attention_factor=section.number("attention_factor", usual),
    )


READERS = {
    "default": _plain,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,  # its name when Phi-3 came out
}
