"""The gated activation of Gemma's MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .launch import jit, takes, tl, triton

BLOCK = 1024


def geglu(gate_up: Tensor) -> Tensor:
    """`gelu(gate) * up` with the tanh approximation of gelu (Hendrycks and Gimpel, 2016).

    gate_up: [tokens, 2 * width], the gate first. Returns [tokens, width].
    """
    if takes(gate_up):
        return _launch(gate_up.contiguous())
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate, approximate="tanh").mul_(up)


def _launch(gate_up: Tensor) -> Tensor:
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((tokens, width), dtype=gate_up.dtype, device=gate_up.device)
    if out.numel():
        geglu_kernel[(tokens, triton.cdiv(width, BLOCK))](gate_up, out, width, BLOCK)
    return out


@jit
def geglu_kernel(gate_up: tl.tensor, out: tl.tensor, WIDTH: tl.constexpr, BLOCK: tl.constexpr) -> None:
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WIDTH
    gate = tl.load(gate_up + token * 2 * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * WIDTH + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    # (1 + tanh(z)) / 2 is sigmoid(2 z); z = sqrt(2 / pi) * (gate + 0.044715 gate^3).
    twice = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    tl.store(out + token * WIDTH + at, (gate * tl.sigmoid(twice) * up).to(out.dtype.element_ty), mask=inside)
