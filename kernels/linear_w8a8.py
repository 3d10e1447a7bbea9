"""Linear layers of 8-bit weights and 8-bit activations: int8, or fp8 (e4m3).

Weights carry one scale for each output, activations one for each row, found when the row is quantized. Products are
summed in int32 or float32 and scaled once at the end. The product is taken as `weight @ x.T`: a handful of rows then
fills the narrow side of the matrix unit, and the many outputs the wide one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import expect_contiguous, jit, power_of_two, takes, tl, triton
from .narrow import narrowed, quantize_by, quantize_heads, scale_of

BLOCK_OUT = 64
BLOCK_IN = 128
SPLIT_ROWS = 64  # rows from which the reduction is not split: there are blocks enough


def quantize_rows(x: Tensor, dtype: torch.dtype, static: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`x` [rows, inputs] as `dtype` (int8 or float8_e4m3fn), and the scale of each row, [rows] float32: of its largest
    magnitude, or `static` ([] float32) for all, which what is larger is cut off at."""
    if takes(x):
        return _launch_quantize(x.contiguous(), dtype, static)
    if static is None:
        return quantize_heads(x, dtype)
    return quantize_by(x, static, dtype), static.expand(len(x)).contiguous()


def linear_w8a8(
    x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None = None, static: Tensor | None = None
) -> Tensor:
    """`x @ (weight * weight_scale).T + bias` with `x` quantized by row, or by the scale `static` ([] float32).

    x: [rows, inputs], float; weight: [outputs, inputs], int8 or float8_e4m3fn; weight_scale: [outputs] float32; bias:
    [outputs]. Returns [rows, outputs] in the dtype of `x`.
    """
    narrow, scale = quantize_rows(x, weight.dtype, static)
    if takes(x):
        return _launch(narrow, scale, weight, weight_scale, bias, x.dtype)
    return linear_w8a8_reference(narrow, scale, weight, weight_scale, bias, x.dtype)


def linear_w8a8_reference(
    x: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The same on quantized rows `x` [rows, inputs] with `scale` [rows]: whole numbers as they are, fp8 in float64."""
    if x.is_cpu and x.dtype == torch.int8:
        out = torch._int_mm(x, weight.T).float().mul_(scale.unsqueeze(-1)).mul_(weight_scale)
        return (out if bias is None else out.add_(bias)).to(dtype)
    out = (x.double() @ weight.double().T) * scale.double().unsqueeze(-1) * weight_scale.double()
    return (out if bias is None else out + bias.double()).to(dtype)


def _launch_quantize(x: Tensor, dtype: torch.dtype, static: Tensor | None) -> tuple[Tensor, Tensor]:
    rows, inputs = x.shape
    narrow = torch.empty((rows, inputs), dtype=dtype, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows:
        block = power_of_two(inputs)
        quantize_kernel[(rows,)](
            x, narrow, scale, scale if static is None else static,
            INPUTS=inputs, BLOCK=block, INT8=dtype == torch.int8, STATIC=static is not None,
            num_warps=min(16, max(1, block // 512)),
        )  # fmt: skip
    return narrow, scale


def row_block(rows: int) -> int:
    """Rows of one program's product."""
    return min(64, max(16, power_of_two(max(rows, 1))))


def input_splits(rows: int, outputs: int, inputs: int) -> int:
    """Parts of the reduction, so that few rows over few outputs still give every multiprocessor something to read.
    Parts are added in float32 by a second kernel, in their order."""
    if rows >= SPLIT_ROWS:
        return 1
    blocks = -(-outputs // BLOCK_OUT)
    return max(1, min(8, inputs // (4 * BLOCK_IN), 512 // blocks))


def _launch(
    x: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    expect_contiguous(x=x, scale=scale, weight=weight, weight_scale=weight_scale)
    rows, inputs = x.shape
    outputs = weight.shape[0]
    out = torch.empty((rows, outputs), dtype=dtype, device=x.device)
    if not rows:
        return out
    splits, block = input_splits(rows, outputs, inputs), row_block(rows)
    parts = out if splits == 1 else torch.empty((splits, rows, outputs), dtype=torch.float32, device=x.device)
    w8a8_kernel[(triton.cdiv(outputs, BLOCK_OUT), triton.cdiv(rows, block), splits)](
        x, scale, weight, weight_scale, out if bias is None else bias, parts, rows, outputs,
        INPUTS=inputs, SPLITS=splits, BIAS=bias is not None, INT8=weight.dtype == torch.int8,
        BLOCK_ROWS=block, BLOCK_OUT=BLOCK_OUT, BLOCK_IN=BLOCK_IN, num_warps=4, num_stages=4,
    )  # fmt: skip
    if splits > 1:
        add_parts(parts, bias, out)
    return out


def add_parts(parts: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Fills `out` [rows, outputs] with the sum of `parts` [splits, rows, outputs] float32, first to last, and of `bias`
    [outputs]."""
    splits, rows, outputs = parts.shape
    add_parts_kernel[(rows, triton.cdiv(outputs, 1024))](
        parts, out if bias is None else bias, out, rows, outputs, SPLITS=splits, BIAS=bias is not None, BLOCK=1024
    )


@jit
def quantize_kernel(
    x: tl.tensor, narrow: tl.tensor, scales: tl.tensor, static: tl.tensor,
    INPUTS: tl.constexpr, BLOCK: tl.constexpr, INT8: tl.constexpr, STATIC: tl.constexpr,
) -> None:  # fmt: skip
    """One program a row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < INPUTS
    value = tl.load(x + row * INPUTS + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(static) if STATIC else scale_of(value, INT8)
    value = narrowed(value, scale, INT8)
    tl.store(narrow + row * INPUTS + at, value.to(narrow.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


@jit
def w8a8_kernel(
    x: tl.tensor, scales: tl.tensor, weight: tl.tensor, weight_scales: tl.tensor, bias: tl.tensor, out: tl.tensor,
    rows: tl.tensor, outputs: tl.tensor,
    INPUTS: tl.constexpr, SPLITS: tl.constexpr, BIAS: tl.constexpr, INT8: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
) -> None:  # fmt: skip
    """One block of outputs and rows, over one part of the inputs."""
    o = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    split = tl.program_id(2)
    i = tl.arange(0, BLOCK_IN)
    STEPS: tl.constexpr = (INPUTS + BLOCK_IN * SPLITS - 1) // (BLOCK_IN * SPLITS)
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.int32 if INT8 else tl.float32)
    w_rows = weight + o.to(tl.int64)[:, None] * INPUTS
    x_rows = x + r.to(tl.int64)[None, :] * INPUTS
    for step in range(0, STEPS):
        at = (split * STEPS + step) * BLOCK_IN + i
        w = tl.load(w_rows + at[None, :], mask=(o < outputs)[:, None] & (at < INPUTS)[None, :], other=0.0)
        v = tl.load(x_rows + at[:, None], mask=(r < rows)[None, :] & (at < INPUTS)[:, None], other=0.0)
        sums = _added(w, v, sums, INT8, BLOCK_IN)
    gain = tl.load(weight_scales + o, mask=o < outputs, other=0.0)
    found = sums.to(tl.float32) * gain[:, None] * tl.load(scales + r, mask=r < rows, other=0.0)[None, :]
    asked = (o < outputs)[:, None] & (r < rows)[None, :]
    if SPLITS == 1:
        if BIAS:
            found += tl.load(bias + o, mask=o < outputs, other=0.0).to(tl.float32)[:, None]
        into = out + r.to(tl.int64)[None, :] * outputs + o[:, None]
    else:
        into = out + (split * rows + r).to(tl.int64)[None, :] * outputs + o[:, None]
    tl.store(into, found.to(out.dtype.element_ty), mask=asked)


@jit
def _added(w: tl.tensor, v: tl.tensor, sums: tl.tensor, INT8: tl.constexpr, BLOCK_IN: tl.constexpr) -> tl.tensor:
    """Hopper adds products of fp8 up in fewer bits than float32 has, which over thousands of inputs shows: each block's
    sum is added to the others in float32, as those of linear_blocks.py are for the sake of their scales. Left alone,
    Triton would take all of them in few bits."""
    return tl.dot(w, v, sums, out_dtype=tl.int32) if INT8 else tl.dot(w, v, sums, max_num_imprecise_acc=BLOCK_IN)


@jit
def add_parts_kernel(
    parts: tl.tensor, bias: tl.tensor, out: tl.tensor, rows: tl.tensor, outputs: tl.tensor,
    SPLITS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < outputs
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(parts + (split * rows + row) * outputs + at, mask=inside, other=0.0)
    if BIAS:
        total += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * outputs + at, total.to(out.dtype.element_ty), mask=inside)
