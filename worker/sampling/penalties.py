"""What penalties go by: the tokens that a row has seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.sampling import SamplingParams
from ...kernels.launch import moved
from ...kernels.penalties import Penalty


class PenaltyCounts:
    """How often each token is in one row: whether at all (prompt and output), and how often in the output."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.output = torch.zeros(vocab_size, dtype=torch.float32, device=device)

    def penalty(self, row: int, params: SamplingParams) -> Penalty:
        """What `params` make of logits `row`."""
        strengths = params.repetition_penalty, params.frequency_penalty, params.presence_penalty
        return Penalty(row, self.seen, self.output, *strengths)

    def count(self, tokens: npt.NDArray[np.int64], prompt_tokens: int) -> None:
        """Takes in `tokens`, of which the first `prompt_tokens` are prompt."""
        ids = moved(torch.from_numpy(tokens), self.seen.device)
        self.seen.index_fill_(0, ids, True)
        output = ids[prompt_tokens:]
        self.output.index_add_(0, output, torch.ones(len(output), device=output.device))

    def count_drawn(self, token: Tensor) -> None:
        """Takes in an output token that only the device knows, [1] int64."""
        self.seen.index_fill_(0, token, True)
        self.output.index_add_(0, token, torch.ones(1, device=token.device))
