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


class PackedWeight:
    """A weight [outputs, inputs] as the product reads it: float32 or bfloat16, contiguous, on CPU (`native_takes`).

    Takes as much memory as the weight, rounded up to blocks of 32 outputs and, in bfloat16, 32 inputs.
    """

    def __init__(self, weight: Tensor) -> None:
        assert native_takes(weight) and weight.dim() == 2
        self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self._kind = KINDS[weight.dtype]
        self.data = _aligned(native.packed_size(self._kind, self.outputs, self.inputs), weight.dtype)
        native.pack(self._kind, weight.data_ptr(), self.data.data_ptr(), self.outputs, self.inputs)

    def multiply(self, x: Tensor, bias: Tensor | None = None, *, wide: bool = False) -> Tensor:
        """`x @ weight.T + bias`. x: [rows, inputs] of the weight's dtype; bias: [outputs] float32. Returns [rows,
        outputs] of the dtype of `x`, or float32, not rounded, where it is `wide`."""
        x = x.contiguous()
        assert native_takes(x) and x.dtype == self.dtype and x.dim() == 2 and x.shape[1] == self.inputs
        assert bias is None or (native_wide(bias) and bias.shape == (self.outputs,))
        out = torch.empty((x.shape[0], self.outputs), dtype=torch.float32 if wide else x.dtype)
        native.multiply(
            self._kind, x.data_ptr(), self.data.data_ptr(), 0 if bias is None else bias.data_ptr(), out.data_ptr(),
            x.shape[0], self.inputs, self.outputs, wide,
        )  # fmt: skip
        return out


def linear_packed_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The definition, in float64. Returns [rows, outputs] float64."""
    product = x.double() @ weight.double().T
    return product if bias is None else product + bias.double()


def _aligned(elements: int, dtype: torch.dtype) -> Tensor:
    spare = ALIGNMENT // dtype.itemsize
    memory = torch.empty(elements + spare, dtype=dtype)
    first = -memory.data_ptr() % ALIGNMENT // dtype.itemsize
    return memory[first : first + elements]
