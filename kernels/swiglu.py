"""The gated activation of Llama's MLP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`. gate_up: [tokens, 2 * width], the gate first. Returns [tokens, width]."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)
