"""The experts of fused_moe.py with weights of fp8 in blocks (linear_blocks.py): the same launches, with scales."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .launch import expect_contiguous, jit, tl, triton
from .linear_blocks import groups_of, quantize_groups
from .swiglu import swiglu

BLOCK_OUT = 64


class BlockExperts(NamedTuple):
    """Weights of all experts as float8_e4m3fn, with the scale of each row's groups, float32.

    gate_up: [experts, 2 * width, hidden], the gate first; down: [experts, hidden, width]; gate_up_scales, down_scales:
    the same with groups in place of inputs.
    """

    gate_up: Tensor
    gate_up_scales: Tensor
    down: Tensor
    down_scales: Tensor


def block_experts(x: Tensor, experts: BlockExperts, places: Tensor, owners: Tensor, total: int, k: int) -> Tensor:
    """What each place's expert says, [total, hidden], not weighted yet. x: [tokens, hidden]; places and owners as
    fused_moe.py makes them: place p is token p // k."""
    expect_contiguous(**experts._asdict())
    dtype, inner = x.dtype, experts.gate_up.shape[1]
    gate_up = torch.empty((total, inner), dtype=dtype, device=x.device)
    _grouped(*quantize_groups(x), experts.gate_up, experts.gate_up_scales, gate_up, places, owners, k)
    out = torch.empty((total, x.shape[1]), dtype=dtype, device=x.device)
    _grouped(*quantize_groups(swiglu(gate_up)), experts.down, experts.down_scales, out, places, owners, 1)
    return out


def _grouped(
    x: Tensor, x_scales: Tensor, weight: Tensor, scales: Tensor, out: Tensor, places: Tensor, owners: Tensor, share: int
) -> None:
    """`out[p] = weight[owner of p] @ x[p // share]` for every place."""
    _, outputs, inputs = weight.shape
    rows = len(places) // len(owners)
    grouped_blocks_kernel[(len(owners), triton.cdiv(outputs, BLOCK_OUT))](
        x, x_scales, weight, scales, out, places, owners, len(out),
        SHARE=share, INPUTS=inputs, GROUPS=groups_of(inputs), OUTPUTS=outputs, BLOCK_ROWS=rows, BLOCK_OUT=BLOCK_OUT,
        num_warps=4, num_stages=4,
    )  # fmt: skip


@jit
def grouped_blocks_kernel(
    x: tl.tensor, x_scales: tl.tensor, weight: tl.tensor, weight_scales: tl.tensor, out: tl.tensor, places: tl.tensor,
    owners: tl.tensor, total: tl.tensor,
    SHARE: tl.constexpr, INPUTS: tl.constexpr, GROUPS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
) -> None:  # fmt: skip
    """One block of rows of one expert, and one block of outputs; taken as weight times rows, which are few."""
    block = tl.program_id(0)
    expert = tl.load(owners + block)
    if expert < 0:
        return
    place = tl.load(places + block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))
    real = place < total
    o = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    row, token = (expert * OUTPUTS + o).to(tl.int64), place // SHARE
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for group in range(0, GROUPS):
        at = group * 128 + tl.arange(0, 128)
        w_mask, v_mask = (o < OUTPUTS)[:, None] & (at < INPUTS)[None, :], real[None, :] & (at < INPUTS)[:, None]
        w = tl.load(weight + row[:, None] * INPUTS + at[None, :], mask=w_mask, other=0.0)
        v = tl.load(x + token[None, :] * INPUTS + at[:, None], mask=v_mask, other=0.0)
        w_scale = tl.load(weight_scales + row * GROUPS + group, mask=o < OUTPUTS, other=0.0)
        v_scale = tl.load(x_scales + token * GROUPS + group, mask=real, other=0.0)
        sums += tl.dot(w, v) * w_scale[:, None] * v_scale[None, :]
    asked = (o < OUTPUTS)[:, None] & real[None, :]
    tl.store(out + place[None, :] * OUTPUTS + o[:, None], sums.to(out.dtype.element_ty), mask=asked)
