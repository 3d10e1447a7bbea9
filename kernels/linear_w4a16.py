"""Linear layers of 4-bit weights in groups, and 16-bit activations (GPTQ: Frantar et al., 2022; AWQ: Lin et al., 2023).

A few rows' product is to take no longer than reading its weights, which leaves a multiprocessor few instructions for
each byte of them (docs/performance.md counts them). Checkpoints of both kinds are therefore packed anew when they are
loaded, such that two weights become numbers at once. Inputs come in blocks of 128, and word c of a block's 16 holds
pairs of neighbours, one in its lower and one in its upper half: inputs 2c and 2c + 1 in the lowest four bits of the
halves, from there up those of 32, 64 and 96 inputs on. After a shift, one operation takes four bits of either half
and puts an exponent above them at which a float's last bits count whole numbers (the idea is FasterTransformer's: Kim
et al., "Who Says Elephants Can't Run", 2022); one more takes the zero point off both. What comes out is a register of
two neighbours, as matrix units take it.

A group's scale is multiplied in after the products, which take whole numbers. It lies with the zero point in one word,
groups first, so that a block of outputs reads both in one piece, ahead of time like the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .attention_decode import precision
from .launch import INTERPRETED, constant, expect_contiguous, half_type, jit, takes, tl, triton
from .linear_w8a8 import SPLIT_ROWS, row_block

PACKED = 128  # inputs of one block
PLANE = 32  # neighbouring inputs that lie at one place of its words
LEAST_GROUP = 16
BLOCK_OUT = 128
IN_ORDER = tuple(range(8))  # GPTQ's and compressed-tensors'
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output of each four bits of a word, from the lowest up
PLACES = ((0, 16), (4, 20), (8, 24), (12, 28))  # first bit of a block's planes, and of pairs in them
ZERO_BITS = 5  # of a group's word, below its scale
PROGRAMS = 256  # wanted at a time, two for each multiprocessor: with two blocks under way each they hide memory's delay
LEAST_BLOCKS = 4  # of one program

# Pairs of 128 in bfloat16, and of 1,024 in float16, from where on neighbours are 1 apart; and the same below zero.
BITS_BFLOAT16, BELOW_BFLOAT16 = constant(0x43004300), constant(0xC300C300 - (1 << 32))
BITS_FLOAT16, BELOW_FLOAT16 = constant(0x64006400), constant(0xE400E400 - (1 << 32))
FOUR_BITS = constant(0x000F000F)
# What Triton has no words for: both halves of a register at once. 0xEA is (a & b) | c; the product is with 1, for
# Ampere has no other sum of two bfloat16 pairs.
TO_BFLOAT16 = constant(
    "{ .reg .b32 whole, one; lop3.b32 whole, $1, 0x000F000F, 0x43004300, 0xEA; mov.b32 one, 0x3F803F80;"
    " fma.rn.bf16x2 $0, whole, one, $2; }"
)
TO_FLOAT16 = constant(
    "{ .reg .b32 whole, one; lop3.b32 whole, $1, 0x000F000F, 0x64006400, 0xEA; mov.b32 one, 0x3C003C00;"
    " fma.rn.f16x2 $0, whole, one, $2; }"
)
ASSEMBLED = constant(not INTERPRETED)


class PackedWeight(NamedTuple):
    """4-bit weights: weight[o, i] = (nibble - zero[o, i // group]) * scale[o, i // group].

    words: [outputs, inputs / 8] int32; scales: [inputs / group, outputs] int32, the bits of a float32 with the zero
    point, 0 to 16, for its last ones; counts: int32 zeros, one for each block of outputs, in which programs count
    those that are done: one product with a weight may run at a time.
    """

    words: Tensor
    scales: Tensor
    counts: Tensor

    @property
    def inputs(self) -> int:
        return int(self.words.shape[1]) * 8

    @property
    def group(self) -> int:
        return self.inputs // int(self.scales.shape[0])


def pack(nibbles: Tensor, scales: Tensor, zeros: Tensor) -> PackedWeight:
    """From nibbles [outputs, inputs] of any integer type, 0 to 15, inputs a multiple of 128; scales and zeros [outputs,
    groups], groups of 16 at least. Scales keep 18 bits after their first, more than half types have.

    Raises ValueError for a shape that the kernel cannot take.
    """
    outputs, inputs = nibbles.shape
    if inputs % PACKED:
        raise ValueError(f"inputs must be a multiple of {PACKED}, got {inputs}")
    group = inputs // scales.shape[1]
    if group * scales.shape[1] != inputs or group % LEAST_GROUP:
        raise ValueError(
            f"groups must be of a multiple of {LEAST_GROUP} inputs, got {inputs} in {scales.shape[1]} groups"
        )
    cut = nibbles.view(outputs, inputs // PACKED, len(PLACES), -1, 2)
    words = torch.zeros((outputs, inputs // PACKED, cut.shape[3]), dtype=torch.int32, device=nibbles.device)
    for plane, pair in enumerate(PLACES):
        for half, place in enumerate(pair):
            words |= cut[:, :, plane, :, half].to(torch.int32) << place
    bits = scales.float().contiguous().view(torch.int32) + (1 << ZERO_BITS >> 1)
    told = bits >> ZERO_BITS << ZERO_BITS | zeros.to(torch.int32)
    return PackedWeight(words.view(outputs, inputs // 8), told.T.contiguous(), _counts(words))


def side_by_side(parts: Sequence[PackedWeight]) -> PackedWeight:
    """One weight with the outputs of several of the same inputs and groups."""
    words = torch.cat([part.words for part in parts])
    return PackedWeight(words, torch.cat([part.scales for part in parts], 1), _counts(words))


def _counts(words: Tensor) -> Tensor:
    return torch.zeros(-(-len(words) // BLOCK_OUT), dtype=torch.int32, device=words.device)


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
    words = weight.words.view(outputs, -1, 1, PLANE // 2, 1)
    places = torch.tensor(PLACES, device=words.device).view(1, 1, len(PLACES), 1, 2)
    nibbles = (words >> places) & 15
    wide = nibbles.reshape(outputs, -1, weight.group).to(torch.float32)
    told = weight.scales.T.unsqueeze(-1)
    zeros, scales = told & (1 << ZERO_BITS) - 1, told >> ZERO_BITS << ZERO_BITS
    return ((wide - zeros) * scales.contiguous().view(torch.float32)).view(outputs, -1)


def part_blocks(rows: int, outputs: int, inputs: int) -> int:
    """Blocks of inputs that one program takes: few rows over few outputs still give every multiprocessor something to
    read. An even number, unless all: so that parts are the same whether blocks go one by one or in twos."""
    blocks, tiles = inputs // PACKED, -(-outputs // BLOCK_OUT)
    parts = 1 if rows >= SPLIT_ROWS else max(1, min(8, blocks // LEAST_BLOCKS, PROGRAMS // tiles))
    each = -(-blocks // parts)
    return min(blocks, each + each % 2)


def pipeline(rows: int, inputs: int, half: bool) -> tuple[int, int, int]:
    """Rows of one program, blocks of inputs that it takes at once, and its warps. With 16 rows of a half type there are
    registers for two blocks, which share what a turn of the loop costs beside the weights."""
    block = row_block(rows)
    if not half:
        return block, 1, 8
    return block, 2 if block == 16 and inputs % (2 * PACKED) == 0 else 1, 8 if block == 64 else 4


def _launch(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    expect_contiguous(**weight._asdict())
    rows, inputs = x.shape
    outputs = weight.words.shape[0]
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    if not rows:
        return out
    part = part_blocks(rows, outputs, inputs)
    splits = -(-inputs // (PACKED * part))
    half = half_type(x.dtype)
    block, at_once, warps = pipeline(rows, inputs, half)
    parts = out if splits == 1 else torch.empty((splits, rows, outputs), dtype=torch.float32, device=x.device)
    w4a16_kernel[(triton.cdiv(outputs, BLOCK_OUT), triton.cdiv(rows, block), splits)](
        x, weight.words, weight.scales, out if bias is None else bias, parts, weight.counts, out, rows, outputs,
        INPUTS=inputs, GROUP=weight.group, SPLITS=splits, PART=part, AT_ONCE=at_once, BIAS=bias is not None,
        HALF=half, BLOCK_ROWS=block, BLOCK_OUT=BLOCK_OUT, PRECISION=precision(x.dtype),
        num_warps=warps, num_stages=3,
    )  # fmt: skip
    return out


@jit
def w4a16_kernel(
    x: tl.tensor, words: tl.tensor, scales: tl.tensor, bias: tl.tensor, parts: tl.tensor, counts: tl.tensor,
    out: tl.tensor, rows: tl.tensor, outputs: tl.tensor,
    INPUTS: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr, PART: tl.constexpr, AT_ONCE: tl.constexpr,
    BIAS: tl.constexpr, HALF: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of outputs and rows, over one part of the inputs; products are taken as weight times rows."""
    o = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    split = tl.program_id(2)
    real_out, real_row = o < outputs, r < rows
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    word_rows = words + o.to(tl.int64)[:, None] * (INPUTS // 8) + tl.arange(0, 16)[None, :]
    x_rows = x + r.to(tl.int64)[None, :] * INPUTS
    last = tl.minimum((split + 1) * PART, INPUTS // 128)
    for first in range(split * PART, last, AT_ONCE):
        for more in tl.static_range(AT_ONCE):
            block = first + more
            word = tl.load(word_rows + block * 16, mask=real_out[:, None], other=0)
            if HALF and GROUP % 128 == 0:
                sums += _block(word, x_rows, scales + o, real_out, real_row, block, outputs, GROUP)
            elif HALF and GROUP % 32 == 0:
                for plane in tl.static_range(4):
                    sums += _plane(word, x_rows, scales + o, real_out, real_row, block, plane, outputs, GROUP)
            else:
                for plane in tl.static_range(4):
                    w = _widened(word, scales + o, real_out, block, plane, outputs, GROUP)
                    v = _rows_of(x_rows, block * 128 + plane * 32, 32, real_row)
                    sums = tl.dot(w.to(v.dtype), v, sums, input_precision=PRECISION)
    into = r.to(tl.int64)[None, :] * outputs + o[:, None]
    asked = real_out[:, None] & real_row[None, :]
    if SPLITS > 1:
        # There are parts only where all rows are in one block: counts are of blocks of outputs alone.
        size = rows.to(tl.int64) * outputs
        tl.store(parts + split * size + into, sums, mask=asked)
        if _comes_last(counts + tl.program_id(0), SPLITS):
            total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
            for part in tl.range(0, SPLITS, num_stages=1):
                total += tl.load(parts + part * size + into, mask=asked, other=0.0, cache_modifier=".cg")
            _store(total, out + into, asked, bias + o, real_out, BIAS)
    else:
        _store(sums, out + into, asked, bias + o, real_out, BIAS)


@jit
def _block(
    word: tl.tensor, x_rows: tl.tensor, scales: tl.tensor, real_out: tl.tensor, real_row: tl.tensor, block: tl.tensor,
    outputs: tl.tensor, GROUP: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """A block's part of the sums, where all of it is of one group."""
    told = tl.load(scales + (block * 128 // GROUP) * outputs, mask=real_out, other=0)
    planes = tl.join(tl.join(word, word >> 8), tl.join(word >> 4, word >> 12))
    w = _whole(planes, told[:, None, None, None], x_rows.dtype.element_ty)
    w = w.permute(0, 2, 3, 1, 4).reshape(word.shape[0], 128)
    return tl.dot(w, _rows_of(x_rows, block * 128, 128, real_row)) * _scale(told)[:, None]


@jit
def _plane(
    word: tl.tensor, x_rows: tl.tensor, scales: tl.tensor, real_out: tl.tensor, real_row: tl.tensor, block: tl.tensor,
    PLANE: tl.constexpr, outputs: tl.tensor, GROUP: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The part of a quarter of a block, which is of one group."""
    first = block * 128 + PLANE * 32
    told = tl.load(scales + (first // GROUP) * outputs, mask=real_out, other=0)
    w = _whole(word >> (4 * PLANE), told[:, None], x_rows.dtype.element_ty).reshape(word.shape[0], 32)
    return tl.dot(w, _rows_of(x_rows, first, 32, real_row)) * _scale(told)[:, None]


@jit
def _widened(
    word: tl.tensor, scales: tl.tensor, real_out: tl.tensor, block: tl.tensor, PLANE: tl.constexpr,
    outputs: tl.tensor, GROUP: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The weights of a quarter of a block in float32. Half of it is of one group in any case."""
    group = (block * 128 + PLANE * 32 + 16 * tl.arange(0, 2)) // GROUP
    told = tl.load(scales[:, None] + (group * outputs)[None, :], mask=real_out[:, None], other=0)
    told = told[:, :, None].broadcast_to(word.shape[0], 2, 16).reshape(word.shape[0], 32)
    pairs = tl.join((word >> (4 * PLANE)) & 15, (word >> (4 * PLANE + 16)) & 15)
    return (pairs.reshape(word.shape[0], 32) - (told & 31)).to(tl.float32) * _scale(told)


@jit
def _whole(words: tl.tensor, told: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """The lowest four bits of either half of `words` less the zero point of `told`, in a last dimension of 2: whole
    numbers of the half type KIND. The four bits are put below an exponent at which they count whole numbers, and so is
    the zero point below the same of the other sign: there is no conversion, and the sum is exact."""
    zero = (told & 31) * 0x10001
    if KIND.is_bf16():
        return _added(words, zero | BELOW_BFLOAT16, KIND, BITS_BFLOAT16, TO_BFLOAT16)
    else:  # noqa: RET505
        return _added(words, zero | BELOW_FLOAT16, KIND, BITS_FLOAT16, TO_FLOAT16)


@jit
def _added(
    words: tl.tensor, below: tl.tensor, KIND: tl.constexpr, BITS: tl.constexpr, ASSEMBLY: tl.constexpr
) -> tl.tensor:
    """The interpreter takes no assembly; without it the compiler takes registers apart to put them together again."""
    if ASSEMBLED:
        both = (words, below)
        return _halves(tl.inline_asm_elementwise(ASSEMBLY, "=r,r,r", both, tl.int32, is_pure=True, pack=1), KIND)
    else:  # noqa: RET505
        return _halves((words & FOUR_BITS) | BITS, KIND) + _halves(below, KIND)


@jit
def _halves(words: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """The two numbers in each of `words`, in a last dimension of 2."""
    return tl.join(words.to(tl.int16), (words >> 16).to(tl.int16)).to(KIND, bitcast=True)


@jit
def _scale(told: tl.tensor) -> tl.tensor:
    return (told & -32).to(tl.float32, bitcast=True)


@jit
def _rows_of(x_rows: tl.tensor, first: tl.tensor, COUNT: tl.constexpr, real_row: tl.tensor) -> tl.tensor:
    return tl.load(x_rows + (first + tl.arange(0, COUNT))[:, None], mask=real_row[None, :], other=0.0)


@jit
def _comes_last(count: tl.tensor, SPLITS: tl.constexpr) -> tl.tensor:
    """Whether the other parts' programs have stored theirs. The barrier puts all that this program stored before its
    count; who counts last sees what was stored before the other counts, and leaves zero for the next product."""
    tl.debug_barrier()
    last = tl.atomic_add(count, 1, sem="acq_rel", scope="gpu") == SPLITS - 1
    if last:
        tl.store(count, 0)
    return last


@jit
def _store(
    sums: tl.tensor, into: tl.tensor, asked: tl.tensor, bias: tl.tensor, real_out: tl.tensor, BIAS: tl.constexpr
) -> None:
    if BIAS:
        sums += tl.load(bias, mask=real_out, other=0.0).to(tl.float32)[:, None]
    tl.store(into, sums.to(into.dtype.element_ty), mask=asked)
