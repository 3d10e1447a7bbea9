"""Matrix products with weights that never change, in the layout that is fastest for them.

On CPU a weight is packed once for the product in C (kernels/linear_packed.py), which gives each row the same bits
whatever the number of rows. What follows is for where there was no compiler for that.

In float32 `F.linear` is slow for 4 to 64 rows, which is where decoding lives. Measured on one Sapphire Rapids core, in
microseconds for 4 / 16 / 64 rows:

    256 x 512     F.linear   12 /   61 /  180   transposed  15 /   24 /  149   packed by oneDNN  21 /   39 /  114
    2048 x 2048   F.linear 1263 / 2418 / 6068   transposed 772 / 1776 / 5867   packed by oneDNN 693 / 1343 / 5189

Packing costs some 10 microseconds a call and so pays for big weights only.

The transposed product also gives each row the same bits whatever the number of rows, except for a single row, which
goes another way. That one is computed twice, so that a sequence alone and in a batch sees the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.linear_invariant import linear_invariant, tiled_product
from ...kernels.linear_packed import PackedWeight
from ...kernels.native.tensors import native_type

PACKED_ELEMENTS = 2**21

Adapt = Callable[[Tensor, Tensor], Tensor]
"""Adds what LoRA adapters have to say of input x into the output, and returns it."""


class Products(NamedTuple):
    """How a model's plain products are computed. With `invariant` each row has the same bits whatever the number of
    rows, as it has in C anyway; with `int8`, which is C's alone, weights are kept in 8 bits each."""

    invariant: bool = False
    int8: bool = False


PLAIN = Products()


class Linear:
    """`x @ weight.T + bias`. weight: [outputs, inputs], bias: [outputs]; x: [rows, inputs], rows above zero.

    `adapt`, when set, has the last word on each output. `packed` is there where the product is C's: then the weight
    itself is not kept, and the bias is float32. Its outputs are float32 then, not rounded, where they are asked for
    as `wide`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, wide: bool = False, how: Products = PLAIN
    ) -> None:
        self.outputs, self.inputs = weight.shape
        self.wide = wide
        self.bias = bias
        self.adapt: Adapt | None = None
        self.packed: PackedWeight | None = None
        self._apply: Callable[[Tensor], Tensor] = self._plain
        if native_type(weight.device, weight.dtype):
            self.packed = PackedWeight(weight.contiguous(), int8=how.int8)
            self.bias = None if bias is None else bias.float().contiguous()
            self._apply = self._in_c
            return
        self._weight = weight
        if how.invariant and weight.device.type == "cpu":
            self._weight = weight.t().contiguous()
            self._apply = self._tiled
        elif how.invariant:
            self._apply = self._invariant
        elif weight.device.type == "cpu" and weight.dtype == torch.float32:
            if weight.numel() >= PACKED_ELEMENTS and torch._C._has_mkldnn:
                self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, 16)
                self._apply = self._by_onednn
            else:
                self._weight = weight.t().contiguous()
                self._apply = self._transposed

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, inputs] to [rows, outputs]."""
        out = self._apply(x)
        return out if self.adapt is None else self.adapt(out, x)

    def _in_c(self, x: Tensor) -> Tensor:
        assert self.packed is not None
        return self.packed.multiply(x, self.bias, wide=self.wide)

    def _invariant(self, x: Tensor) -> Tensor:
        return linear_invariant(x, self._weight, self.bias)

    def _tiled(self, x: Tensor) -> Tensor:
        out = tiled_product(x, self._weight)
        return out if self.bias is None else out.add_(self.bias)

    def _plain(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self.bias)

    def _by_onednn(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return out

    def _transposed(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return self._product(x.expand(2, -1))[:1]
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return torch.mm(x, self._weight)
        return torch.addmm(self.bias, x, self._weight)
