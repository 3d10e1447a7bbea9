"""The gated activation of Gemma's MLP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .gated import launch_gated
from .launch import takes


def geglu(gate_up: Tensor) -> Tensor:
    """`gelu(gate) * up` with the tanh approximation of gelu (Hendrycks and Gimpel, 2016).

    gate_up: [tokens, 2 * width], the gate first. Returns [tokens, width].
    """
    if takes(gate_up):
        return launch_gated(gate_up.contiguous(), gelu=True)
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate, approximate="tanh").mul_(up)
