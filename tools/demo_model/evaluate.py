"""The held-out loss, in bits per byte of text: a number that does not depend on the tokenizer."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from .model import Llama
from .windows import Stream

IGNORED = -100
BATCH_TOKENS = 4096


def held_out_windows(stream: Stream, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, [windows, length] int64, that predict every token of the stream but the first once."""
    count = -(-(len(stream) - 1) // length)
    padded = np.full(count * length + 1, IGNORED, dtype=np.int64)
    padded[: len(stream)] = stream
    targets = torch.from_numpy(padded[1:].reshape(count, length).copy())
    inputs = torch.from_numpy(padded[:-1].clip(min=0).reshape(count, length).copy())
    return inputs, targets


@torch.no_grad()
def total_nats(model: Llama, stream: Stream, length: int, rank: int = 0, processes: int = 1) -> float:
    """The summed loss over this process's share of the windows."""
    inputs, targets = (part[rank::processes] for part in held_out_windows(stream, length))
    total = 0.0
    batch = BATCH_TOKENS // length
    for first in range(0, len(inputs), batch):
        wanted = targets[first : first + batch].flatten()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs[first : first + batch]).flatten(0, 1)
        loss = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORED, reduction="sum")
        total += loss.item()
    return total


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """From a summed loss to the number that is reported."""
    return nats / math.log(2) / text_bytes
