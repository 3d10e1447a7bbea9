"""Log probabilities of the raw model: before masks, rules, penalties and temperature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..plan import PlaceLogprobs


class Logprobs(NamedTuple):
    """Each place's own token, then the likeliest ones, best first. ids: [places, width] u32, values: alike, float32."""

    ids: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    def part(self, first: int, end: int, top: int) -> PlaceLogprobs:
        """Places `first` to `end`, the own token and the `top` likeliest of each."""
        width = 1 + top
        return PlaceLogprobs(
            width, self.ids[first:end, :width].tobytes(), self.values[first:end, :width].astype("<f4").tobytes()
        )


def logprobs_of(logits: Tensor, own: Tensor, top: int) -> Logprobs:
    """logits: [places, vocabulary] float32; own: [places] int64, each place's token; top: how many of the likeliest."""
    ids, values = likeliest(logits, own, top)
    return Logprobs(ids.cpu().numpy().astype("<u4"), values.cpu().numpy())


def likeliest(logits: Tensor, own: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The same, left on the device: ids [places, 1 + top] int64 and values, alike, float32."""
    ids, scores = own.unsqueeze(-1), logits.gather(-1, own.unsqueeze(-1))
    if top:
        best = logits.topk(top, -1)
        ids, scores = torch.cat((ids, best.indices), -1), torch.cat((scores, best.values), -1)
    return ids, scores - logits.logsumexp(-1, keepdim=True)
