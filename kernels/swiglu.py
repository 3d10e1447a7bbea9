"""The gated activation of Llama's MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .gated import launch_gated
from .launch import takes
from .native import native
from .native.tensors import KINDS, native_takes


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`. gate_up: [tokens, 2 * width], the gate first. Returns [tokens, width]."""
    if takes(gate_up):
        return launch_gated(gate_up.contiguous(), gelu=False)
    if native_takes(gate_up):
        tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty((tokens, width), dtype=gate_up.dtype)
        native.swiglu(KINDS[gate_up.dtype], gate_up.data_ptr(), out.data_ptr(), tokens, width)
        return out
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)
