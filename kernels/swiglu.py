"""The gated activation of Llama's MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .launch import jit, takes, tl, triton
from .native import native
from .native.tensors import KINDS, native_takes

BLOCK = 1024


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`. gate_up: [tokens, 2 * width], the gate first. Returns [tokens, width]."""
    if takes(gate_up):
        return _launch(gate_up.contiguous())
    if native_takes(gate_up):
        tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty((tokens, width), dtype=gate_up.dtype)
        native.swiglu(KINDS[gate_up.dtype], gate_up.data_ptr(), out.data_ptr(), tokens, width)
        return out
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def _launch(gate_up: Tensor) -> Tensor:
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((tokens, width), dtype=gate_up.dtype, device=gate_up.device)
    if out.numel():
        swiglu_kernel[(tokens, triton.cdiv(width, BLOCK))](gate_up, out, width, BLOCK)
    return out


@jit
def swiglu_kernel(gate_up: tl.tensor, out: tl.tensor, WIDTH: tl.constexpr, BLOCK: tl.constexpr) -> None:
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WIDTH
    gate = tl.load(gate_up + token * 2 * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * WIDTH + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * WIDTH + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)
