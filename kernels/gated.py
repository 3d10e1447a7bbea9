"""The launch and the kernel that gated activations share; each has its own file for its formula and reference."""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import jit, tl, triton

BLOCK = 1024


def launch_gated(gate_up: Tensor, *, gelu: bool) -> Tensor:
    """`activation(gate) * up`. gate_up: [tokens, 2 * width], contiguous, the gate first. Returns [tokens, width].

    The activation is silu, or with `gelu` the tanh approximation of gelu.
    """
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((tokens, width), dtype=gate_up.dtype, device=gate_up.device)
    if out.numel():
        gated_kernel[(tokens, triton.cdiv(width, BLOCK))](gate_up, out, width, gelu, BLOCK)
    return out


@jit
def gated_kernel(
    gate_up: tl.tensor, out: tl.tensor, WIDTH: tl.constexpr, GELU: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WIDTH
    gate = tl.load(gate_up + token * 2 * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * WIDTH + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    scaled = gate
    if GELU:
        # (1 + tanh(z)) / 2 is sigmoid(2 z); z = sqrt(2 / pi) * (gate + 0.044715 gate^3).
        scaled = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    tl.store(out + token * WIDTH + at, (gate * tl.sigmoid(scaled) * up).to(out.dtype.element_ty), mask=inside)
