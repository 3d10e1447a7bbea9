"""Linear layers that give each row the same bits whatever the other rows are, however many, and wherever it stands.

A product's last bits follow from the shape of its tiles, and from how its sum over the inputs is cut. Libraries choose
both by the number of rows; here neither depends on it (He et al., "Defeating Nondeterminism in LLM Inference", Thinking
Machines Lab, 2025). On a device the sum is cut into as many parts as fill it for a few rows. With few rows a part is a
program, and a second kernel adds the parts up; with many, one program takes a tile's parts one after the other, and
adds them up in the same order.

On CPU the rows go through the library by tiles of a fixed number, the last one filled up where that matters. Where
there is a C compiler, products with packed weights (linear_packed.py) are of this kind by themselves, and faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_decode import precision
from .launch import expect_contiguous, jit, takes, tl, triton
from .linear_w8a8 import add_parts

CPU_ROWS = 16  # below it the time goes into reading weights
# Fewer rows, of float32 and row-major weights, go other ways in the library: one on Intel's processors, one to three on
# AMD's. From here on they have the bits of a full tile (the tests see to it).
ALIKE_ROWS = 4
ALIKE_OUTPUTS = 16  # with fewer, a row's bits follow from its place on AMD's
BLOCK_ROWS = 64
BLOCK_OUT = 64
BLOCK_IN = 64
FEW_ROWS = 64  # up to so many, each part of the sum is a program


def linear_invariant(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`. x: [rows, inputs]; weight: [outputs, inputs] and bias: [outputs], of one dtype. Returns
    [rows, outputs] of it."""
    if takes(x):
        return _launch(x.contiguous(), weight, bias)
    out = tiled_product(x, weight.t())
    return out if bias is None else out.add_(bias)


def tiled_product(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight` by torch, by tiles of CPU_ROWS rows. x: [rows, inputs]; weight: [inputs, outputs], copied at each
    call where it has less than ALIKE_OUTPUTS columns (`widened` does so once). Returns [rows, outputs]."""
    outputs = weight.shape[1]
    if outputs < ALIKE_OUTPUTS:
        return tiled_product(x, widened(weight))[:, :outputs].contiguous()
    if x.shape[0] <= CPU_ROWS:
        return _one_tile(x, weight)
    return torch.cat([_one_tile(tile, weight) for tile in torch.split(x, CPU_ROWS)])


def widened(weight: Tensor) -> Tensor:
    """`weight`, row-major, with columns of zeros up to ALIKE_OUTPUTS."""
    return F.pad(weight, (0, max(0, ALIKE_OUTPUTS - weight.shape[1]))).contiguous()


def _one_tile(x: Tensor, weight: Tensor) -> Tensor:
    rows = x.shape[0]
    row_major = x.dtype == torch.float32 and weight.is_contiguous()
    # With several threads the library gives each some of the rows: five come as three and two.
    least = ALIKE_ROWS if row_major and torch.get_num_threads() == 1 else CPU_ROWS
    return torch.mm(x, weight) if rows >= least else torch.mm(F.pad(x, (0, 0, 0, least - rows)), weight)[:rows]


def linear_invariant_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The definition, in float64."""
    out = x.double() @ weight.double().T
    return (out if bias is None else out + bias.double()).to(x.dtype)


def input_parts(outputs: int, inputs: int) -> int:
    """Parts of the sum: enough to give every multiprocessor something to read, whatever the number of rows."""
    blocks = -(-outputs // BLOCK_OUT)
    return max(1, min(8, inputs // (4 * BLOCK_IN), 512 // blocks))


def _launch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    expect_contiguous(weight=weight)
    rows, inputs = x.shape
    outputs = weight.shape[0]
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    if not rows:
        return out
    parts = input_parts(outputs, inputs)
    apart = parts > 1 and rows <= FEW_ROWS
    into = torch.empty((parts, rows, outputs), dtype=torch.float32, device=x.device) if apart else out
    invariant_kernel[(triton.cdiv(outputs, BLOCK_OUT), triton.cdiv(rows, BLOCK_ROWS), parts if apart else 1)](
        x, weight, out if bias is None else bias, into, rows, outputs,
        INPUTS=inputs, PARTS=parts, APART=apart, BIAS=bias is not None, PRECISION=precision(x.dtype),
        BLOCK_ROWS=BLOCK_ROWS, BLOCK_OUT=BLOCK_OUT, BLOCK_IN=BLOCK_IN, num_warps=4, num_stages=4,
    )  # fmt: skip
    if apart:
        add_parts(into, bias, out)
    return out


@jit
def invariant_kernel(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, out: tl.tensor, rows: tl.tensor, outputs: tl.tensor,
    INPUTS: tl.constexpr, PARTS: tl.constexpr, APART: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
) -> None:  # fmt: skip
    """One tile: of one part of the sum, or of all of them. Taken as `weight @ x.T`, whose wide side is full for one
    row, too."""
    o = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    STEPS: tl.constexpr = (INPUTS + BLOCK_IN * PARTS - 1) // (BLOCK_IN * PARTS)
    w_rows = weight + o.to(tl.int64)[:, None] * INPUTS
    x_rows = x + r.to(tl.int64)[None, :] * INPUTS
    i = tl.arange(0, BLOCK_IN)
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for turn in range(0, 1 if APART else PARTS):
        part = tl.program_id(2) if APART else turn
        sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
        for step in range(0, STEPS):
            at = (part * STEPS + step) * BLOCK_IN + i
            w = tl.load(w_rows + at[None, :], mask=(o < outputs)[:, None] & (at < INPUTS)[None, :], other=0.0)
            v = tl.load(x_rows + at[:, None], mask=(r < rows)[None, :] & (at < INPUTS)[:, None], other=0.0)
            sums = tl.dot(w, v, sums, input_precision=PRECISION)
        total += sums
    asked = (o < outputs)[:, None] & (r < rows)[None, :]
    if APART:
        into = out + (tl.program_id(2) * rows + r).to(tl.int64)[None, :] * outputs + o[:, None]
    else:
        if BIAS:
            total += tl.load(bias + o, mask=o < outputs, other=0.0).to(tl.float32)[:, None]
        into = out + r.to(tl.int64)[None, :] * outputs + o[:, None]
    tl.store(into, total.to(out.dtype.element_ty), mask=asked)
