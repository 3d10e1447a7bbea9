"""Reads the parts of quantized products that a rank holds, and makes products of them.

Where kernels run, weights stay as narrow as they are stored. On CPU those of 4 bits and of fp8 are widened when they
are read: torch has no product for them that comes near the one of float32. Those of int8 stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...kernels.launch import runs_on
from ...kernels.linear_blocks import linear_blocks, rounded, spread_scales
from ...kernels.linear_w4a16 import (
    AWQ_ORDER,
    IN_ORDER,
    PackedWeight,
    linear_w4a16,
    nibbles_of,
    pack,
    side_by_side,
    unpacked,
)
from ...kernels.linear_w8a8 import linear_w8a8, quantize_rows
from .linear import Linear
from .quantization import BLOCK, Layout, Quantization
from .split import Part

if TYPE_CHECKING:
    from .weights import WeightReader

WORD = 8  # weights of 4 bits in one int32
PACKED_ZERO = 8  # what compressed-tensors adds to a signed weight


class QuantizedLinear(Linear):
    """A product of narrow weights. `product` gives [rows, outputs] for [rows, inputs], the bias added."""

    def __init__(self, outputs: int, inputs: int, product: Callable[[Tensor], Tensor], bias: Tensor | None) -> None:
        self.outputs, self.inputs, self.bias = outputs, inputs, bias
        self.adapt, self.packed, self.wide = None, None, False
        self._apply = product


class Piece(NamedTuple):
    """Rows and columns of one stored matrix, [outputs, inputs]. One of the two parts is the whole."""

    name: str
    outputs: int
    inputs: int
    rows: Part
    columns: Part

    def cut(self, by_rows: Part, by_columns: Part, *, inputs_first: bool) -> tuple[int, Part]:
        """Dimension and part of a stored tensor: `by_columns` along its inputs where these are split, else `by_rows`
        along its outputs."""
        if self.columns.size < self.inputs:
            return (0 if inputs_first else 1), by_columns
        return (1 if inputs_first else 0), by_rows


def read_quantized(weights: WeightReader, how: Quantization, pieces: list[Piece], bias: Tensor | None) -> Linear:
    """The pieces, of one input, side by side. Raises ConfigError."""
    if how.layout.grouped:
        weight = side_by_side([_grouped(weights, how, piece) for piece in pieces])
        if weights.device.type == "meta" or runs_on(weights.device):
            outputs = weight.words.shape[0]
            return QuantizedLinear(outputs, weight.inputs, lambda x: linear_w4a16(x, weight, bias), bias)
        return Linear(unpacked(weight).to(weights.dtype), bias)
    if how.layout == Layout.BLOCKS:
        return _of_blocks(weights, pieces, bias)
    found = [_wide(weights, how, piece) for piece in pieces]
    wide, scale = (torch.cat(parts) for parts in list(zip(*found, strict=True))[:2])
    inputs = [part.input_scale for part in found if part.input_scale is not None]
    # Products of one input see it in one scale: the greatest cuts nothing off.
    static = torch.stack(inputs).amax(0) if inputs else None
    outputs, columns = wide.shape
    if how.layout == Layout.FP8 and weights.device.type != "meta" and not runs_on(weights.device):
        return QuantizedLinear(outputs, columns, _widened(wide, scale, bias, static), bias)
    return QuantizedLinear(outputs, columns, lambda x: linear_w8a8(x, wide, scale, bias, static), bias)


def _of_blocks(weights: WeightReader, pieces: list[Piece], bias: Tensor | None) -> Linear:
    weight, scales = (
        torch.cat(parts) for parts in zip(*(read_blocks(weights, piece) for piece in pieces), strict=True)
    )
    outputs, inputs = weight.shape
    if weights.device.type == "meta" or runs_on(weights.device):
        return QuantizedLinear(outputs, inputs, lambda x: linear_blocks(x, weight, scales, bias), bias)
    product = Linear(spread_scales(weight, scales), None if bias is None else bias.float())
    return QuantizedLinear(outputs, inputs, lambda x: product(rounded(x)).to(x.dtype), bias)


def read_blocks(weights: WeightReader, piece: Piece) -> tuple[Tensor, Tensor]:
    """The piece of an fp8 matrix with a scale for each block: [outputs, inputs] float8_e4m3fn, and the scales of each
    row's groups, [outputs, groups] float32. Its columns begin with a block."""
    dim, part = piece.cut(piece.rows, piece.columns, inputs_first=False)
    stored = weights.stored(f"{piece.name}.weight", (piece.outputs, piece.inputs), torch.float8_e4m3fn, dim, part)
    groups = Part(piece.columns.start // BLOCK, -(-piece.columns.stop // BLOCK))
    shape = (-(-piece.outputs // BLOCK), -(-piece.inputs // BLOCK))
    scales = weights.stored(f"{piece.name}.{Layout.BLOCKS.mark}", shape, torch.float32, 1, groups)
    rows = scales.unsqueeze(1).expand(-1, BLOCK, -1).flatten(0, 1)
    return stored, rows[piece.rows.start : piece.rows.stop]


def _widened(weight: Tensor, scale: Tensor, bias: Tensor | None, static: Tensor | None) -> Callable[[Tensor], Tensor]:
    """What `linear_w8a8` gives, by a product in float32 of what the rounded inputs and weights stand for."""
    product = Linear(weight.float() * scale.unsqueeze(-1), None if bias is None else bias.float())

    def apply(x: Tensor) -> Tensor:
        narrow, scales = quantize_rows(x, weight.dtype, static)
        return product(narrow.float() * scales.unsqueeze(-1)).to(x.dtype)

    return apply


def _grouped(weights: WeightReader, how: Quantization, piece: Piece) -> PackedWeight:
    nibbles, scales, zeros = {Layout.AWQ: _awq, Layout.GPTQ: _gptq, Layout.PACKED: _packed}[how.layout](
        weights, how, piece
    )
    return pack(nibbles, scales, zeros)


Grouped = tuple[Tensor, Tensor, Tensor]
"""Nibbles [outputs, inputs], scales and zeros [outputs, groups]."""


def _awq(weights: WeightReader, how: Quantization, piece: Piece) -> Grouped:
    words, inside = _words_of(piece)
    dim, part = piece.cut(words, piece.columns, inputs_first=True)
    shape = (piece.inputs, -(-piece.outputs // WORD))
    stored = weights.stored(f"{piece.name}.qweight", shape, torch.int32, dim, part)
    zeros, scales = _zeros_and_scales(weights, how, piece, AWQ_ORDER)
    return nibbles_of(stored, AWQ_ORDER)[:, inside].T, scales, zeros


def _gptq(weights: WeightReader, how: Quantization, piece: Piece) -> Grouped:
    if weights.holds(f"{piece.name}.g_idx"):
        _check_order(weights, how, piece)
    words = Part(piece.columns.start // WORD, piece.columns.stop // WORD)
    dim, part = piece.cut(piece.rows, words, inputs_first=True)
    stored = weights.stored(f"{piece.name}.qweight", (piece.inputs // WORD, piece.outputs), torch.int32, dim, part)
    zeros, scales = _zeros_and_scales(weights, how, piece, IN_ORDER)
    return nibbles_of(stored.T.contiguous(), IN_ORDER), scales, (zeros + how.zero_offset) & 15


def _packed(weights: WeightReader, how: Quantization, piece: Piece) -> Grouped:
    name, words = piece.name, Part(piece.columns.start // WORD, piece.columns.stop // WORD)
    if weights.holds(f"{name}.weight_shape"):
        told = weights.stored(f"{name}.weight_shape", (2,), torch.int64)
        if not told.is_meta and told.tolist() != [piece.outputs, piece.inputs]:
            raise ConfigError(
                f"{weights.where(name)}.weight_shape is {told.tolist()}, and config.json implies "
                f"{[piece.outputs, piece.inputs]}"
            )
    dim, part = piece.cut(piece.rows, words, inputs_first=False)
    shape = (piece.outputs, piece.inputs // WORD)
    stored = weights.stored(f"{name}.weight_packed", shape, torch.int32, dim, part)
    total, groups = _groups(how, piece)
    dim, part = piece.cut(piece.rows, groups, inputs_first=False)
    scales = weights.stored(f"{name}.weight_scale", (piece.outputs, total), weights.dtype, dim, part)
    return nibbles_of(stored, IN_ORDER), scales, torch.full_like(scales, PACKED_ZERO)


def _zeros_and_scales(
    weights: WeightReader, how: Quantization, piece: Piece, order: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Of AWQ and GPTQ, [outputs, groups] each."""
    total, groups = _groups(how, piece)
    words, inside = _words_of(piece)
    dim, part = piece.cut(words, groups, inputs_first=True)
    zeros = weights.stored(f"{piece.name}.qzeros", (total, -(-piece.outputs // WORD)), torch.int32, dim, part)
    dim, part = piece.cut(piece.rows, groups, inputs_first=True)
    # As files have them: bfloat16 would round what was fitted.
    kind = torch.float32 if weights.dtype == torch.float32 else torch.float16
    scales = weights.stored(f"{piece.name}.scales", (total, piece.outputs), kind, dim, part)
    return nibbles_of(zeros, order)[:, inside].T, scales.T


def _check_order(weights: WeightReader, how: Quantization, piece: Piece) -> None:
    order = weights.stored(f"{piece.name}.g_idx", (piece.inputs,), torch.int32)
    if order.is_meta:
        return
    plain = torch.arange(piece.inputs, device=order.device) // (how.group or piece.inputs)
    if not torch.equal(order.long(), plain):
        raise ConfigError(
            f"{weights.where(piece.name)}.g_idx has inputs in another order (desc_act), which is not supported"
        )


def _words_of(piece: Piece) -> tuple[Part, slice]:
    """Words along the outputs that hold the piece's rows, and where in them those are."""
    words = Part(piece.rows.start // WORD, -(-piece.rows.stop // WORD))
    first = piece.rows.start - WORD * words.start
    return words, slice(first, first + piece.rows.size)


def _groups(how: Quantization, piece: Piece) -> tuple[int, Part]:
    """Groups of the whole matrix, and those of the piece."""
    size = how.group or piece.inputs
    return piece.inputs // size, Part(piece.columns.start // size, -(-piece.columns.stop // size))


class _Wide(NamedTuple):
    weight: Tensor  # [outputs, inputs] int8 or fp8
    scale: Tensor  # [outputs] float32
    input_scale: Tensor | None  # [] float32


def _wide(weights: WeightReader, how: Quantization, piece: Piece) -> _Wide:
    kind = torch.int8 if how.layout == Layout.INT8 else torch.float8_e4m3fn
    dim, part = piece.cut(piece.rows, piece.columns, inputs_first=False)
    stored = weights.stored(f"{piece.name}.weight", (piece.outputs, piece.inputs), kind, dim, part)
    name, rows = f"{piece.name}.weight_scale", piece.outputs
    shape = weights.shape(name, (rows, 1), (rows,), (1,), ())
    if shape and shape[0] == rows:
        scale = weights.stored(name, shape, torch.float32, 0, piece.rows).flatten()
    else:
        scale = weights.stored(name, shape, torch.float32).flatten().expand(piece.rows.size)
    if not how.static:
        return _Wide(stored, scale, None)
    name = f"{piece.name}.input_scale"
    return _Wide(stored, scale, weights.stored(name, weights.shape(name, (1,), ()), torch.float32).view(()))
