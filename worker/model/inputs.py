"""What one step feeds to a model, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...kernels.kv_pages import KvPages
from ...kernels.paged_attention import AttentionBatch
from ..adapters.segments import StepSegments

LayerCache = KvPages


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The tokens of all rows, one after the other. Every tensor is int64 on the model's device."""

    token_ids: Tensor  # [tokens]
    positions: Tensor  # [tokens]
    slots: Tensor  # [tokens], where each token's keys and values go
    attention: Mapping[int | None, AttentionBatch]  # by window, None for layers without one
    wanted: Tensor  # [wanted], flat tokens whose hidden states are wanted: those of sampled rows, then others
    segments: StepSegments[Any] | None = None  # which tokens run with which adapter

    @property
    def tokens(self) -> int:
        return int(self.token_ids.shape[0])

    def narrow(self) -> None:
        """From here on only the wanted tokens go through the model's products."""
        if self.segments is not None:
            self.segments.narrow()
