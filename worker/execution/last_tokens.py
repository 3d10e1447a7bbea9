"""The token that each row got last, where it was drawn: what the next step goes on with, without the host's knowing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..parallel.communicator import Communicator
from ..plan import SAMPLED, StepPlan


class LastTokens:
    """ids: [rows] int64 on the device. On ranks that do not sample they are true after `share` only.

    A row whose draw failed has 0 there: it ends, and what was planned for it meanwhile counts for nothing.
    """

    def __init__(self, rows: int, comm: Communicator) -> None:
        self.ids = torch.zeros(rows, dtype=torch.int64, device=comm.device)
        self._comm = comm

    def note(self, rows: Tensor, tokens: Tensor) -> None:
        """`rows` ([n] int64, all different) got `tokens` ([n] int64, below 0 where there is none)."""
        self.ids.index_copy_(0, rows, tokens.clamp(min=0))

    def note_now(self, rows: npt.NDArray[np.int64], tokens: Sequence[int]) -> None:
        """The same, of tokens that the host has, on CPU."""
        self.ids.numpy()[rows] = np.maximum(tokens, 0)

    def share(self) -> None:
        """Tells every rank of the stage; all of them have to call. Nothing is asked of the device."""
        place = self._comm.place
        assert place.pp == 1, "with several stages no plan goes on with a token that the leader has not seen"
        if place.tp > 1:
            with torch.inference_mode():
                # Float64 holds every id, and every kind of group sums it.
                mine = self.ids.double() if place.is_sampler else torch.zeros_like(self.ids, dtype=torch.float64)
                self.ids.copy_(self._comm.all_reduce(mine))

    def filled(self, token_ids: Tensor, rows: Tensor) -> Tensor:
        """`token_ids` with the last token of row `rows[i]` in place i where that is not below 0; both [n] int64."""
        return torch.where(rows < 0, token_ids, self.ids.index_select(0, rows.clamp(min=0)))

    def resolved(self, plan: StepPlan) -> StepPlan:
        """The plan with the tokens themselves, on CPU; but for its `decodes`, whose tokens are `ids`."""
        if not plan.appended:
            return plan
        ids = self.ids.numpy()
        appended = [(row, int(ids[row]) if token == SAMPLED else token) for row, token in plan.appended]
        return msgspec.structs.replace(plan, appended=appended)
