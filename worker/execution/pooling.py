"""Embeddings: which hidden states of a step they take, and what becomes of them over the steps of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...proto.headway.v1.pooling_pb2 import POOLING_MEAN
from ..plan import RowWork, StepPlan
from .rows import Rows


class PooledPart(NamedTuple):
    """The last `length` of the tokens that a step computes for a row: their hidden states are summed up.

    With the row's last token the sum is whole, and to be divided by `over`; before that `over` is 0.
    """

    row: int
    length: int
    over: int


def pooled_parts(rows: Rows, work: Sequence[RowWork]) -> list[PooledPart]:
    """What a step gives to the rows with pooling, in the plan's order. `rows` has applied the plan."""
    if not rows.pooling:
        return []
    parts = []
    for item in work:
        pooling = rows.pooling.get(item.row)
        if pooling is None:
            continue
        end = item.computed + item.count
        last = end == rows.known[item.row]
        if pooling == POOLING_MEAN:
            parts.append(PooledPart(item.row, item.count, end if last else 0))
        elif last:
            parts.append(PooledPart(item.row, 1, 1))
    return parts


class Pooler:
    """Makes the embeddings of the live rows, on the sampling rank.

    A mean is summed in float64 over the steps of its prompt: where they part it, and what else ran in them, leaves no
    trace beyond that of the hidden states themselves. A row that leaves and comes back begins again.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}

    def apply(self, plan: StepPlan) -> None:
        """Forgets the rows that leave."""
        for row in plan.freed:
            self._sums.pop(row, None)

    def take(self, parts: Sequence[PooledPart], hidden: Tensor) -> list[tuple[int, bytes]]:
        """(row, embedding as little-endian float32) of the rows whose last part is among `parts`.

        hidden: [sum of counts, hidden size] in the order of `parts`, which are of different rows.
        """
        rows, vectors, at = [], [], 0
        for part in parts:
            vector = self._add(part, hidden[at : at + part.length])
            at += part.length
            if part.over:
                rows.append(part.row)
                vectors.append(vector)
        if not rows:
            return []
        ready = torch.stack(vectors).float().cpu().numpy().astype("<f4", copy=False)
        return [(row, vector.tobytes()) for row, vector in zip(rows, ready, strict=True)]

    def _add(self, part: PooledPart, states: Tensor) -> Tensor:
        total = states.sum(0, dtype=torch.float64)
        before = self._sums.pop(part.row, None)
        if before is not None:
            total += before
        if part.over:
            return total / part.over
        self._sums[part.row] = total
        return total
