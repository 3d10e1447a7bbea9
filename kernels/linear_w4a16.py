"""Linear layers of 4-bit weights in groups, and 16-bit activations (GPTQ: Frantar et al., 2022; AWQ: Lin et al., 2023).

Checkpoints of both kinds are packed anew when they are loaded, into the layout that the kernel reads: inputs in blocks
of 128, and word c of a block holds, from its lowest four bits up, the weights of inputs c, c + 16, up to c + 112. One
shift and one mask then give sixteen neighbouring inputs, as many as one matrix product takes, without a move between
lanes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .attention_decode import precision
from .launch import constant, expect_contiguous, jit, takes, tl, triton
from .linear_w8a8 import add_parts, input_splits, row_block

PACKED = 128  # inputs of one block
PLANE = 16  # neighbouring inputs in one plane of it
PLANES = PACKED // PLANE
BLOCK_OUT = 64
IN_ORDER = tuple(range(8))  # GPTQ's and compressed-tensors'
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output of each four bits of a word, from the lowest up
# Bits of 128 in bfloat16, and of 1,024 in float16, from where on neighbours are 1 apart.
WHOLE_BFLOAT16, BITS_BFLOAT16 = constant(128.0), constant(0x4300)
WHOLE_FLOAT16, BITS_FLOAT16 = constant(1024.0), constant(0x6400)


class PackedWeight(NamedTuple):
    """4-bit weights: weight[o, i] = (nibble - zeros[o, i // group]) * scales[o, i // group].

    words: [outputs, inputs / 8] int32; scales, zeros: [outputs, inputs / group], of one float type; zeros are whole
    numbers from 0 to 16, as GPTQ and AWQ have them.
    """

    words: Tensor
    scales: Tensor
    zeros: Tensor

    @property
    def inputs(self) -> int:
        return int(self.words.shape[1]) * 8

    @property
    def group(self) -> int:
        return self.inputs // int(self.scales.shape[1])


def pack(nibbles: Tensor, scales: Tensor, zeros: Tensor) -> PackedWeight:
    """From nibbles [outputs, inputs] of any integer type, 0 to 15, inputs a multiple of 128, groups of 16 at least.

    Raises ValueError for a shape that the kernel cannot take.
    """
    outputs, inputs = nibbles.shape
    if inputs % PACKED:
        raise ValueError(f"inputs must be a multiple of {PACKED}, got {inputs}")
    group = inputs // scales.shape[1]
    if group * scales.shape[1] != inputs or group % PLANE:
        raise ValueError(f"groups must be of a multiple of {PLANE} inputs, got {inputs} in {scales.shape[1]} groups")
    planes = nibbles.reshape(outputs, inputs // PACKED, PLANES, PLANE).to(torch.int64)
    shifts = (4 * torch.arange(PLANES, device=nibbles.device)).view(1, 1, PLANES, 1)
    words = (planes << shifts).sum(2)
    words = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
    return PackedWeight(words.view(outputs, inputs // 8).contiguous(), scales.contiguous(), zeros.contiguous())


def nibbles_of(words: Tensor, order: tuple[int, ...]) -> Tensor:
    """[rows, columns] int32 to [rows, 8 * columns] int32: four bits number n of a word go to its place `order[n]`."""
    shifts = 4 * torch.arange(8, device=words.device, dtype=torch.int32)
    nibbles = (words.unsqueeze(-1) >> shifts) & 15
    return nibbles[..., torch.tensor(order, device=words.device).argsort()].flatten(1)


def linear_w4a16(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`. x: [rows, inputs], bias: [outputs]. Returns [rows, outputs] in the dtype of `x`."""
    if takes(x):
        return _launch(x.contiguous(), weight, bias)
    return torch.nn.functional.linear(x, unpacked(weight).to(x.dtype), None if bias is None else bias.to(x.dtype))


def unpacked(weight: PackedWeight) -> Tensor:
    """The weights as [outputs, inputs] float32."""
    outputs = weight.words.shape[0]
    shifts = (4 * torch.arange(PLANES, device=weight.words.device)).view(1, 1, PLANES, 1)
    nibbles = (weight.words.view(outputs, -1, 1, PLANE) >> shifts) & 15
    wide = nibbles.reshape(outputs, -1, weight.group).to(torch.float32)
    return ((wide - weight.zeros.unsqueeze(-1).float()) * weight.scales.unsqueeze(-1).float()).view(outputs, -1)


def _launch(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    expect_contiguous(**weight._asdict())
    rows, inputs = x.shape
    outputs = weight.words.shape[0]
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    if not rows:
        return out
    splits, block = input_splits(rows, outputs, inputs), row_block(rows)
    parts = out if splits == 1 else torch.empty((splits, rows, outputs), dtype=torch.float32, device=x.device)
    w4a16_kernel[(triton.cdiv(outputs, BLOCK_OUT), triton.cdiv(rows, block), splits)](
        x, weight.words, weight.scales, weight.zeros, out if bias is None else bias, parts, rows, outputs,
        INPUTS=inputs, GROUP=weight.group, SPLITS=splits, BIAS=bias is not None, BLOCK_ROWS=block,
        BLOCK_OUT=BLOCK_OUT, PRECISION=precision(x.dtype), num_warps=4, num_stages=3,
    )  # fmt: skip
    if splits > 1:
        add_parts(parts, bias, out)
    return out


@jit
def w4a16_kernel(
    x: tl.tensor, words: tl.tensor, scales: tl.tensor, zeros: tl.tensor, bias: tl.tensor, out: tl.tensor,
    rows: tl.tensor, outputs: tl.tensor,
    INPUTS: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of outputs and rows, over one part of the inputs; products are taken as weight times rows."""
    o = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    split = tl.program_id(2)
    c = tl.arange(0, 16)
    BLOCKS: tl.constexpr = INPUTS // 128
    STEPS: tl.constexpr = (BLOCKS + SPLITS - 1) // SPLITS
    GROUPS: tl.constexpr = INPUTS // GROUP
    real_out, real_row = o < outputs, r < rows
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    word_rows = words + o.to(tl.int64)[:, None] * (INPUTS // 8)
    x_rows = x + r.to(tl.int64)[None, :] * INPUTS
    group_rows = o.to(tl.int64) * GROUPS
    last = tl.minimum((split + 1) * STEPS, BLOCKS)
    for block in range(split * STEPS, last):
        word = tl.load(word_rows + block * 16 + c[None, :], mask=real_out[:, None], other=0)
        if GROUP % 128 == 0:
            # One group: its scale is multiplied in after the products, which take whole numbers.
            group = block * 128 // GROUP
            scale = tl.load(scales + group_rows + group, mask=real_out, other=0.0).to(tl.float32)
            zero = tl.load(zeros + group_rows + group, mask=real_out, other=0.0).to(tl.float32)
            found = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
            for plane in tl.static_range(8):
                w = _whole((word >> (4 * plane)) & 15, zero, x.dtype.element_ty)
                v = tl.load(x_rows + (block * 128 + plane * 16 + c)[:, None], mask=real_row[None, :], other=0.0)
                found = tl.dot(w, v, found, input_precision=PRECISION)
            sums += found * scale[:, None]
        else:
            for plane in tl.static_range(8):
                first = block * 128 + plane * 16
                group = first // GROUP
                scale = tl.load(scales + group_rows + group, mask=real_out, other=0.0)
                zero = tl.load(zeros + group_rows + group, mask=real_out, other=0.0)
                nibble = ((word >> (4 * plane)) & 15).to(tl.float32)
                w = (nibble - zero.to(tl.float32)[:, None]) * scale.to(tl.float32)[:, None]
                v = tl.load(x_rows + (first + c)[:, None], mask=real_row[None, :], other=0.0)
                sums = tl.dot(w.to(v.dtype), v, sums, input_precision=PRECISION)
    asked = real_out[:, None] & real_row[None, :]
    if SPLITS == 1:
        if BIAS:
            sums += tl.load(bias + o, mask=real_out, other=0.0).to(tl.float32)[:, None]
        into = out + r.to(tl.int64)[None, :] * outputs + o[:, None]
    else:
        into = out + (split * rows + r).to(tl.int64)[None, :] * outputs + o[:, None]
    tl.store(into, sums.to(out.dtype.element_ty), mask=asked)


@jit
def _whole(nibble: tl.tensor, zero: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """`nibble - zero` as KIND. In half types the four bits are put below an exponent at which they count whole numbers:
    there is no conversion, and the difference is exact."""
    if KIND.is_bf16():
        wide = (nibble | BITS_BFLOAT16).to(tl.int16).to(KIND, bitcast=True)
        return wide - (zero + WHOLE_BFLOAT16).to(KIND)[:, None]
    elif KIND.is_fp16():  # noqa: RET505
        wide = (nibble | BITS_FLOAT16).to(tl.int16).to(KIND, bitcast=True)
        return wide - (zero + WHOLE_FLOAT16).to(KIND)[:, None]
    else:
        return (nibble.to(tl.float32) - zero[:, None]).to(KIND)
