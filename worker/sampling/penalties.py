"""Repetition, frequency and presence penalties, over the tokens that a row has seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.sampling import SamplingParams


class PenaltyCounts:
    """How often each token is in one row: whether at all (prompt and output), and how often in the output."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.output = torch.zeros(vocab_size, dtype=torch.float32, device=device)

    def count(self, tokens: npt.NDArray[np.int64], prompt_tokens: int) -> None:
        """Takes in `tokens`, of which the first `prompt_tokens` are prompt."""
        ids = torch.from_numpy(tokens).to(self.seen.device)
        self.seen[ids] = True
        output = ids[prompt_tokens:]
        self.output.index_add_(0, output, torch.ones(len(output), device=output.device))

    def count_drawn(self, token: Tensor) -> None:
        """Takes in an output token that only the device knows, [1] int64."""
        self.seen.index_fill_(0, token, True)
        self.output.index_add_(0, token, torch.ones(1, device=token.device))


def penalize(logits: Tensor, counts: list[PenaltyCounts], params: list[SamplingParams]) -> None:
    """Changes `logits` ([rows, vocabulary] float32) in place, row i by `params[i]`.

    As Hugging Face and vLLM do: repetition first (positive logits divided, others multiplied, for tokens of prompt and
    output), then `frequency * count + presence` subtracted for tokens of the output.
    """
    device = logits.device

    def column(name: str) -> Tensor:
        return torch.tensor([[getattr(row, name)] for row in params], dtype=torch.float32, device=device)

    seen = torch.stack([row.seen for row in counts])
    output = torch.stack([row.output for row in counts])
    repetition = column("repetition_penalty")
    repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
    logits.copy_(torch.where(seen, repeated, logits))
    logits.sub_(output * column("frequency_penalty")).sub_((output > 0) * column("presence_penalty"))
