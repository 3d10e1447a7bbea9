"""Linear layers of fp8 (e4m3) weights with one scale for each block of 128 x 128, as DeepSeek-V3 and its followers
publish them (DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, section 3.3).

Activations have one scale for each row and 128 inputs, found when they are quantized. Each 128 inputs' product is
scaled and added up in float32: the matrix units add fp8 products in fewer bits, and so for no longer than that.

A weight's scale is kept for each of its rows, not for 128 of them, so that parts of several matrices may lie in one
product wherever a split cut them. That costs 4 bytes beside 128.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .launch import expect_contiguous, jit, takes, tl, triton
from .linear_w8a8 import add_parts, input_splits, row_block
from .narrow import narrowed, quantize_heads

GROUP = 128  # inputs that share a scale
BLOCK_OUT = 64
GROUPS_AT_ONCE = 8  # of one program that quantizes
FP8 = torch.float8_e4m3fn


def groups_of(inputs: int) -> int:
    """Scales of a row; the last may be of fewer inputs."""
    return -(-inputs // GROUP)


def quantize_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` [rows, inputs] as float8_e4m3fn, and the scale of each row's groups, [rows, groups] float32."""
    if takes(x):
        return _launch_quantize(x.contiguous())
    rows, inputs = x.shape
    cut = F.pad(x, (0, -inputs % GROUP)).view(rows, -1, GROUP)
    narrow, scale = quantize_heads(cut, FP8)
    return narrow.view(rows, -1)[:, :inputs].contiguous(), scale


def spread_scales(x: Tensor, scale: Tensor) -> Tensor:
    """`x` [..., inputs] as float32, each times the scale of its group, [..., groups]."""
    wide = scale.repeat_interleave(GROUP, -1)[..., : x.shape[-1]]
    return x.float() * wide


def rounded(x: Tensor) -> Tensor:
    """What `x` [rows, inputs] is once it was quantized, float32."""
    return spread_scales(*quantize_groups(x))


def linear_blocks(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ (weight * scales).T + bias` with `x` quantized by groups.

    x: [rows, inputs], float; weight: [outputs, inputs] float8_e4m3fn; scales: [outputs, groups] float32; bias:
    [outputs]. Returns [rows, outputs] in the dtype of `x`.
    """
    narrow, scale = quantize_groups(x)
    if takes(x):
        return _launch(narrow, scale, weight, scales, bias, x.dtype)
    return linear_blocks_reference(narrow, scale, weight, scales, bias, x.dtype)


def linear_blocks_reference(
    x: Tensor, scale: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The same on quantized rows `x` with `scale` [rows, groups], in float64."""
    out = spread_scales(x, scale).double() @ spread_scales(weight, scales).double().T
    return (out if bias is None else out + bias.double()).to(dtype)


def _launch_quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    rows, inputs = x.shape
    groups = groups_of(inputs)
    narrow = torch.empty((rows, inputs), dtype=FP8, device=x.device)
    scale = torch.empty((rows, groups), dtype=torch.float32, device=x.device)
    if rows:
        quantize_groups_kernel[(rows, triton.cdiv(groups, GROUPS_AT_ONCE))](
            x, narrow, scale, INPUTS=inputs, GROUPS=groups, AT_ONCE=GROUPS_AT_ONCE
        )
    return narrow, scale


def _launch(
    x: Tensor, scale: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    expect_contiguous(x=x, scale=scale, weight=weight, scales=scales)
    rows, inputs = x.shape
    outputs = weight.shape[0]
    out = torch.empty((rows, outputs), dtype=dtype, device=x.device)
    if not rows:
        return out
    splits, block = input_splits(rows, outputs, inputs), row_block(rows)
    parts = out if splits == 1 else torch.empty((splits, rows, outputs), dtype=torch.float32, device=x.device)
    blocks_kernel[(triton.cdiv(outputs, BLOCK_OUT), triton.cdiv(rows, block), splits)](
        x, scale, weight, scales, out if bias is None else bias, parts, rows, outputs,
        INPUTS=inputs, SPLITS=splits, BIAS=bias is not None, BLOCK_ROWS=block, BLOCK_OUT=BLOCK_OUT,
        num_warps=4, num_stages=4,
    )  # fmt: skip
    if splits > 1:
        add_parts(parts, bias, out)
    return out


@jit
def quantize_groups_kernel(
    x: tl.tensor, narrow: tl.tensor, scales: tl.tensor,
    INPUTS: tl.constexpr, GROUPS: tl.constexpr, AT_ONCE: tl.constexpr,
) -> None:  # fmt: skip
    """Some groups of one row."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * AT_ONCE + tl.arange(0, AT_ONCE)
    at = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    value = tl.load(x + row * INPUTS + at, mask=at < INPUTS, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), 1), 1e-20) / 448.0
    value = narrowed(value, scale[:, None], False)
    tl.store(narrow + row * INPUTS + at, value.to(narrow.dtype.element_ty), mask=at < INPUTS)
    tl.store(scales + row * GROUPS + group, scale, mask=group < GROUPS)


@jit
def blocks_kernel(
    x: tl.tensor, x_scales: tl.tensor, weight: tl.tensor, weight_scales: tl.tensor, bias: tl.tensor, out: tl.tensor,
    rows: tl.tensor, outputs: tl.tensor,
    INPUTS: tl.constexpr, SPLITS: tl.constexpr, BIAS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr,
) -> None:  # fmt: skip
    """One block of outputs and rows, over one part of the inputs; taken as weight times rows."""
    o = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    split = tl.program_id(2)
    real_out, real_row = o < outputs, r < rows
    GROUPS: tl.constexpr = (INPUTS + 127) // 128
    STEPS: tl.constexpr = (GROUPS + SPLITS - 1) // SPLITS
    w_rows = weight + o.to(tl.int64)[:, None] * INPUTS
    x_rows = x + r.to(tl.int64)[None, :] * INPUTS
    w_scales, v_scales = weight_scales + o.to(tl.int64) * GROUPS, x_scales + r.to(tl.int64) * GROUPS
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    last = tl.minimum((split + 1) * STEPS, GROUPS)
    for group in range(split * STEPS, last):
        at = group * 128 + tl.arange(0, 128)
        w = tl.load(w_rows + at[None, :], mask=real_out[:, None] & (at < INPUTS)[None, :], other=0.0)
        v = tl.load(x_rows + at[:, None], mask=real_row[None, :] & (at < INPUTS)[:, None], other=0.0)
        w_scale = tl.load(w_scales + group, mask=real_out, other=0.0)
        v_scale = tl.load(v_scales + group, mask=real_row, other=0.0)
        sums += tl.dot(w, v) * w_scale[:, None] * v_scale[None, :]
    asked = real_out[:, None] & real_row[None, :]
    if SPLITS == 1:
        if BIAS:
            sums += tl.load(bias + o, mask=real_out, other=0.0).to(tl.float32)[:, None]
        into = out + r.to(tl.int64)[None, :] * outputs + o[:, None]
    else:
        into = out + (split * rows + r).to(tl.int64)[None, :] * outputs + o[:, None]
    tl.store(into, sums.to(out.dtype.element_ty), mask=asked)
