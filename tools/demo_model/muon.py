"""Muon for the matrices (https://kellerjordan.github.io/posts/muon), AdamW for the embedding and the norms.

Muon is known to need fewer steps than AdamW to the same loss. Its five small products a matrix cost about a tenth of a
step of 12 k tokens here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

MATRIX_RATE = 0.02
VECTOR_RATE = 0.004
WEIGHT_DECAY = 0.1
MOMENTUM = 0.95


def orthogonalise(stack: Tensor) -> Tensor:
    """Push the singular values of each matrix in [n, rows, columns] towards 1: five Newton-Schulz steps in bfloat16."""
    wide = stack.shape[1] <= stack.shape[2]
    x = (stack if wide else stack.mT).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    pushed: Tensor = (x if wide else x.mT).to(stack.dtype)
    return pushed


class Muon:
    """Both optimizers behind one `step`; every process that gets the same gradients makes the same step."""

    def __init__(self, model: nn.Module) -> None:
        matrices = [w for n, w in model.named_parameters() if w.dim() == 2 and "embed" not in n]
        others = [w for n, w in model.named_parameters() if w.dim() != 2 or "embed" in n]
        self.shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for weight in matrices:
            self.shapes[weight.shape].append(weight)
        self.momentum = {shape: torch.zeros(len(group), *shape) for shape, group in self.shapes.items()}
        self.adam = torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.01, foreach=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update; `rate` in [0, 1] scales all learning rates."""
        for group in self.adam.param_groups:
            group["lr"] = VECTOR_RATE * rate
        self.adam.step()
        for shape, weights in self.shapes.items():
            gradient = torch.stack([w.grad for w in weights if w.grad is not None])
            momentum = self.momentum[shape].lerp_(gradient, 1 - MOMENTUM)
            update = orthogonalise(gradient.lerp_(momentum, MOMENTUM))
            scale = MATRIX_RATE * rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for weight, direction in zip(weights, update, strict=True):
                weight.mul_(1 - MATRIX_RATE * rate * WEIGHT_DECAY).sub_(direction, alpha=scale)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"adam": self.adam.state_dict(), "momentum": list(self.momentum.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of the same model."""
        self.adam.load_state_dict(state["adam"])
        for mine, saved in zip(self.momentum.values(), state["momentum"], strict=True):
            mine.copy_(saved)
