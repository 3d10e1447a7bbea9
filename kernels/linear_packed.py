"""Matrix products on CPU with weights packed once, in C (kernels/native/matmul.inc, matmul_amx.inc).

Each row of a product has the same bits whatever the other rows are, and however many: sums go over the inputs, first to
last. They are taken in float32. For bfloat16 the matrix units of AMX are used where there are some, else the dot
products of AVX-512, else weights are widened in the registers; which of them it is decides the last bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .native import native
from .native.tensors import KINDS, native_takes, native_wide

ALIGNMENT = 64  # bytes
ROUNDED_AT_ONCE = 256  # outputs: whole blocks of 32
WHOLE = 127  # the largest number of a weight of 8 bits, and exact in bfloat16


class PackedWeight:
    """A weight [outputs, inputs] as the product reads it: float32 or bfloat16, contiguous, on CPU (`native_takes`).

    Takes as much memory as the weight, rounded up to blocks of 32 outputs and, in bfloat16, 32 inputs. As `int8` it is
    kept as whole numbers of 8 bits with a float32 scale for each output, and takes a half of that, or a quarter: the
    activations stay as they are, and the numbers become those of the weight's dtype again on their way to the product.
    """

    def __init__(self, weight: Tensor, *, int8: bool = False) -> None:
        assert native_takes(weight) and weight.dim() == 2
        self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self._kind = KINDS[weight.dtype]
        self.scales: Tensor | None = None
        if int8:
            self.data = _aligned(native.packed_size(self._kind, self.outputs, self.inputs), torch.int8)
            self.scales = torch.empty(self.outputs, dtype=torch.float32)
            filled = 0
            for first in range(0, self.outputs, ROUNDED_AT_ONCE):  # what it takes meanwhile is not the weight's size
                some = weight[first : first + ROUNDED_AT_ONCE]
                numbers, self.scales[first : first + len(some)] = whole_numbers(some)
                packed = self._packed(numbers.to(weight.dtype))
                self.data[filled : filled + packed.numel()].copy_(packed)
                filled += packed.numel()
        else:
            self.data = self._packed(weight)

    def _packed(self, weight: Tensor) -> Tensor:
        packed = _aligned(native.packed_size(self._kind, *weight.shape), weight.dtype)
        native.pack(self._kind, weight.data_ptr(), packed.data_ptr(), *weight.shape)
        return packed

    def multiply(self, x: Tensor, bias: Tensor | None = None, *, wide: bool = False) -> Tensor:
        """`x @ weight.T + bias`. x: [rows, inputs] of the weight's dtype; bias: [outputs] float32. Returns [rows,
        outputs] of the dtype of `x`, or float32, not rounded, where it is `wide`."""
        x = x.contiguous()
        assert native_takes(x) and x.dtype == self.dtype and x.dim() == 2 and x.shape[1] == self.inputs
        assert bias is None or (native_wide(bias) and bias.shape == (self.outputs,))
        out = torch.empty((x.shape[0], self.outputs), dtype=torch.float32 if wide else x.dtype)
        native.multiply(
            self._kind, x.data_ptr(), self.data.data_ptr(), 0 if self.scales is None else self.scales.data_ptr(),
            0 if bias is None else bias.data_ptr(), out.data_ptr(), x.shape[0], self.inputs, self.outputs, wide,
        )  # fmt: skip
        return out


def whole_numbers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest whole numbers from -127 to 127, [outputs, inputs] int8, of a weight [outputs, inputs] in units of its
    rows' scales, [outputs] float32: a row's largest number is 127."""
    wide = weight.float()
    scales = wide.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / WHOLE
    return (wide / scales.unsqueeze(1)).round_().to(torch.int8), scales


def linear_packed_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The definition, in float64. Returns [rows, outputs] float64."""
    product = x.double() @ weight.double().T
    return product if bias is None else product + bias.double()


def _aligned(elements: int, dtype: torch.dtype) -> Tensor:
    spare = ALIGNMENT // dtype.itemsize
    memory = torch.empty(elements + spare, dtype=dtype)
    first = -memory.data_ptr() % ALIGNMENT // dtype.itemsize
    return memory[first : first + elements]
