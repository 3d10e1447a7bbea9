"""Root-mean-square normalisation, with the residual added first where there is one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .launch import expect_contiguous, jit, power_of_two, takes, tl
from .native import native
from .native.tensors import KINDS, native_takes, native_wide


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, computed in float32.

    x: [..., hidden], weight: [hidden] of the same dtype, or float32, with which the product is taken before it is
    rounded. Returns the shape and dtype of `x`.
    """
    if takes(x):
        return _launch(x, None, weight, eps)
    if native_takes(x) and native_wide(weight):
        return _in_c(None, x, weight, eps)
    return _by_torch(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Adds `x` into `residual` in place, and returns the norm of the sum.

    x, residual: [tokens, hidden] of one dtype, weight: [hidden], as for `rms_norm`. Returns [tokens, hidden].
    """
    if takes(x):
        return _launch(x, residual, weight, eps)
    if native_takes(x, residual) and native_wide(weight):
        return _in_c(x, residual, weight, eps)
    residual.add_(x)
    return _by_torch(residual, weight, eps)


def _in_c(x: Tensor | None, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    out = torch.empty_like(residual)
    hidden = residual.shape[-1]
    assert weight.shape == (hidden,) and (x is None or x.shape == residual.shape)
    native.add_rms_norm(
        KINDS[residual.dtype], 0 if x is None else x.data_ptr(), residual.data_ptr(), weight.data_ptr(),
        out.data_ptr(), residual.numel() // hidden, hidden, eps,
    )  # fmt: skip
    return out


def _by_torch(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if weight.dtype != x.dtype:
        return F.rms_norm(x.float(), weight.shape, weight, eps).to(x.dtype)
    return F.rms_norm(x, weight.shape, weight, eps)


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The definition, word for word."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight


def _launch(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    x = x.contiguous()
    expect_contiguous(residual=x if residual is None else residual, weight=weight)
    hidden = x.shape[-1]
    tokens = x.numel() // hidden
    out = torch.empty_like(x)
    if tokens:
        block = power_of_two(hidden)
        warps = min(16, max(1, block // 512))
        rms_norm_kernel[(tokens,)](
            x, x if residual is None else residual, weight, out, eps, hidden, residual is not None, block,
            num_warps=warps,
        )  # fmt: skip
    return out


@jit
def rms_norm_kernel(
    x: tl.tensor, residual: tl.tensor, weight: tl.tensor, out: tl.tensor, eps: tl.tensor,
    HIDDEN: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One program a token. The sum is rounded to the residual's dtype before it is normed, as the reference does."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < HIDDEN
    value = tl.load(x + token * HIDDEN + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(residual + token * HIDDEN + at, mask=inside, other=0.0).to(tl.float32)
        total = value.to(residual.dtype.element_ty)
        tl.store(residual + token * HIDDEN + at, total, mask=inside)
        value = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / HIDDEN + eps)
    gain = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * HIDDEN + at, (value * scale * gain).to(out.dtype.element_ty), mask=inside)
