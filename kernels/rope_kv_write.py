"""Norm and rotary embedding of queries and keys, and the write of keys and values into the paged cache, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .kv_pages import KvPages
from .kv_write import kv_write
from .launch import expect_contiguous, jit, power_of_two, takes, tl
from .narrow import narrowed, scale_of
from .native import native
from .native.tensors import KINDS, native_takes, native_wide
from .rms_norm import rms_norm_reference
from .rotary import rotate

NATIVE_HEAD_DIM = 1024


class HeadNorms(NamedTuple):
    """RMS norms over each query and key head, ahead of the turn. Weights: [head_dim], float."""

    query: Tensor
    key: Tensor
    eps: float


def rope_kv_write(
    qkv: Tensor, cos: Tensor, signed_sin: Tensor, positions: Tensor, slots: Tensor, pages: KvPages, heads: int,
    norms: HeadNorms | None = None,
) -> Tensor:  # fmt: skip
    """Norms queries and keys where there are norms, turns them by their positions, stores keys and values in their
    slots, returns the queries.

    qkv: [tokens, heads + 2 * kv_heads, head_dim], contiguous; cos, signed_sin: [positions, rotary_dim], tables of
    `rotary_tables`, of which a head's first rotary_dim elements are turned; positions, slots: [tokens] int64, slots as
    for `kv_write`. The tables, and the norms' weights, may be float32 where `qkv` is narrower; on CPU that is fastest.
    Returns [tokens, heads, head_dim].
    """
    if takes(qkv):
        return _launch(qkv, cos, signed_sin, positions, slots, pages, heads, norms)
    weights = () if norms is None else (norms.query, norms.key)
    native_shape = qkv.shape[-1] <= NATIVE_HEAD_DIM
    if native_shape and native_takes(qkv, pages.keys, pages.values) and native_wide(cos, signed_sin, *weights):
        return _in_c(qkv, cos, signed_sin, positions.contiguous(), slots.contiguous(), pages, heads, norms)
    return rope_kv_write_reference(qkv, cos, signed_sin, positions, slots, pages, heads, norms)


def _in_c(
    qkv: Tensor, cos: Tensor, signed_sin: Tensor, positions: Tensor, slots: Tensor, pages: KvPages, heads: int,
    norms: HeadNorms | None,
) -> Tensor:  # fmt: skip
    tokens, total, head_dim = qkv.shape
    slots_there, kv_heads = pages.keys.shape[0] * pages.page_size, pages.keys.shape[2]
    assert (
        total == heads + 2 * kv_heads
        and pages.keys.shape == pages.values.shape
        and len(positions) == len(slots) == tokens
    )
    assert cos.shape == signed_sin.shape and cos.shape[-1] <= head_dim == pages.keys.shape[3]
    query = torch.empty((tokens, heads, head_dim), dtype=qkv.dtype)
    query_norm, key_norm, eps = (
        (0, 0, 0.0) if norms is None else (norms.query.data_ptr(), norms.key.data_ptr(), norms.eps)
    )
    native.rope_kv_write(
        KINDS[qkv.dtype], qkv.data_ptr(), cos.data_ptr(), signed_sin.data_ptr(), positions.data_ptr(),
        slots.data_ptr(), query.data_ptr(), pages.keys.data_ptr(), pages.values.data_ptr(), query_norm, key_norm,
        tokens, cos.shape[0], slots_there, heads, kv_heads, head_dim, cos.shape[-1], eps,
    )  # fmt: skip
    return query


def rope_kv_write_reference(
    qkv: Tensor, cos: Tensor, signed_sin: Tensor, positions: Tensor, slots: Tensor, pages: KvPages, heads: int,
    norms: HeadNorms | None = None,
) -> Tensor:  # fmt: skip
    """The same by torch's operations."""
    kv_heads = pages.keys.shape[2]
    if norms is not None:
        query = rms_norm_reference(qkv[:, :heads], norms.query, norms.eps)
        key = rms_norm_reference(qkv[:, heads : heads + kv_heads], norms.key, norms.eps)
        qkv = torch.cat((query.to(qkv.dtype), key.to(qkv.dtype), qkv[:, heads + kv_heads :]), 1)
    width = cos.shape[-1]
    turned = rotate(qkv[:, : heads + kv_heads, :width], cos[positions].unsqueeze(1), signed_sin[positions].unsqueeze(1))
    turned = torch.cat((turned, qkv[:, : heads + kv_heads, width:]), -1)
    kv_write(turned[:, heads:], qkv[:, heads + kv_heads :], pages, slots)
    return turned[:, :heads].to(qkv.dtype).contiguous()


def _launch(
    qkv: Tensor, cos: Tensor, signed_sin: Tensor, positions: Tensor, slots: Tensor, pages: KvPages, heads: int,
    norms: HeadNorms | None,
) -> Tensor:  # fmt: skip
    expect_contiguous(
        qkv=qkv, cos=cos, signed_sin=signed_sin, positions=positions, slots=slots, keys=pages.keys, values=pages.values
    )
    tokens, _, head_dim = qkv.shape
    kv_heads, rotary_dim = pages.keys.shape[2], cos.shape[-1]
    query = torch.empty((tokens, heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    narrow = pages.narrow
    if tokens:
        rope_kv_write_kernel[(tokens, heads + 2 * kv_heads)](
            qkv, cos, signed_sin, positions, slots, query, pages.keys, pages.values,
            pages.key_scales if narrow else qkv, pages.value_scales if narrow else qkv,
            norms.query if norms else qkv, norms.key if norms else qkv, norms.eps if norms else 0.0,
            HEADS=heads, KV_HEADS=kv_heads, DIM=head_dim, ROTARY=rotary_dim, BLOCK=power_of_two(head_dim),
            NORMS=norms is not None, NARROW=narrow, INT8=pages.keys.dtype == torch.int8, num_warps=1,
        )  # fmt: skip
    return query


@jit
def rope_kv_write_kernel(
    qkv: tl.tensor, cos: tl.tensor, signed_sin: tl.tensor, positions: tl.tensor, slots: tl.tensor, query: tl.tensor,
    keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor, query_norm: tl.tensor,
    key_norm: tl.tensor, eps: tl.tensor,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr, BLOCK: tl.constexpr,
    NORMS: tl.constexpr, NARROW: tl.constexpr, INT8: tl.constexpr,
) -> None:  # fmt: skip
    """One program for each token and head of `qkv`."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < DIM
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * DIM
    value = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0
    if NORMS and head < HEADS + KV_HEADS:
        scale = tl.rsqrt(tl.sum(value * value, 0) / DIM + eps)
        value = _normed(value, scale, query_norm, key_norm, head < HEADS, at, inside, qkv)
    if head < HEADS + KV_HEADS:
        position = tl.load(positions + token)
        turning = at < ROTARY
        other = tl.where(at < ROTARY // 2, at + ROTARY // 2, at - ROTARY // 2)
        partner = tl.load(source + other, mask=turning, other=0.0).to(tl.float32)
        if NORMS:
            partner = _normed(partner, scale, query_norm, key_norm, head < HEADS, other, turning, qkv)
        c = tl.load(cos + position * ROTARY + at, mask=turning, other=1.0).to(tl.float32)
        s = tl.load(signed_sin + position * ROTARY + at, mask=turning, other=0.0).to(tl.float32)
        value = value * c + partner * s
    if head < HEADS:
        tl.store(query + (token * HEADS + head) * DIM + at, value.to(query.dtype.element_ty), mask=inside)
    else:
        slot = tl.load(slots + token)
        if head < HEADS + KV_HEADS:
            _store(keys, key_scales, slot * KV_HEADS + head - HEADS, value, at, inside, qkv, DIM, NARROW, INT8)
        else:
            into = slot * KV_HEADS + head - HEADS - KV_HEADS
            _store(values, value_scales, into, value, at, inside, qkv, DIM, NARROW, INT8)


@jit
def _normed(
    value: tl.tensor, scale: tl.tensor, query_norm: tl.tensor, key_norm: tl.tensor, is_query: tl.tensor, at: tl.tensor,
    inside: tl.tensor, like: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Elements `at` of a head after its norm, rounded to the model's own dtype."""
    if is_query:
        gain = tl.load(query_norm + at, mask=inside, other=0.0).to(tl.float32)
    else:
        gain = tl.load(key_norm + at, mask=inside, other=0.0).to(tl.float32)
    return (value * scale * gain).to(like.dtype.element_ty).to(tl.float32)


@jit
def _store(
    cache: tl.tensor, scales: tl.tensor, row: tl.tensor, value: tl.tensor, at: tl.tensor, inside: tl.tensor,
    like: tl.tensor,
    DIM: tl.constexpr, NARROW: tl.constexpr, INT8: tl.constexpr,
) -> None:  # fmt: skip
    """One key or value into its place; a narrow one is taken from what the model's own dtype would hold."""
    value = value.to(like.dtype.element_ty)
    if NARROW:
        wide = value.to(tl.float32)
        scale = scale_of(wide, INT8)
        wide = narrowed(wide, scale, INT8)
        tl.store(cache + row * DIM + at, wide.to(cache.dtype.element_ty), mask=inside)
        tl.store(scales + row, scale)
    else:
        tl.store(cache + row * DIM + at, value.to(cache.dtype.element_ty), mask=inside)
