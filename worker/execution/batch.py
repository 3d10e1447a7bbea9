"""Builds a step's flat inputs from the plan's work and the persistent rows, with one copy to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.attention_rows import host_rows
from ...kernels.launch import runs_on
from ...kernels.paged_attention import AttentionBatch, paged_rows, plan_attention
from ..adapters.segments import StepSegments
from ..model.inputs import StepInputs
from ..plan import SAMPLED, RowWork
from .last_tokens import LastTokens
from .pooling import pooled_parts
from .rows import Rows
from .scoring import Places
from .transfer import Array, to_device

Int64 = npt.NDArray[np.int64]


def build_inputs(
    rows: Rows,
    work: Sequence[RowWork],
    places: Sequence[Places],
    windows: Sequence[int | None],
    device: torch.device,
    dtype: torch.dtype,
    queries_a_tile: int = 1,
    segments: StepSegments[Any] | None = None,
    last: LastTokens | None = None,
    carried: Sequence[Array] = (),
    invariant: bool = False,
) -> tuple[StepInputs, list[Tensor]]:
    """Inputs of a step with at least one work item, after `rows` has applied its plan.

    Rows with one token come first, by length, because attention groups them as they come. `wanted` are the last tokens
    of sampled rows, in the plan's order, then `places`, then what `pooled_parts` says. `windows` are those of the
    model's layers, `dtype` is the model's, `queries_a_tile` and `invariant` are as for `plan_attention`. `segments`
    hear which adapter each token runs with. Tokens that only the device knows come from `last`.

    Also returns `carried` as tensors on the device: they come along in the step's one copy.
    """
    order = rows.work.ordered()
    row, computed, counts = rows.work.row[order], rows.work.computed[order], rows.work.count[order]
    ends: Int64 = np.cumsum(counts)

    owner = np.repeat(row, counts)
    positions = np.arange(ends[-1]) + np.repeat(computed - (ends - counts), counts)
    token_ids = rows.tokens[owner, positions].astype(np.int64)
    page, offset = np.divmod(positions, rows.page_size)
    slots = rows.tables[owner, page].astype(np.int64) * rows.page_size + offset

    last_token = np.empty(len(ends), np.int64)
    last_token[order] = ends - 1
    wanted = last_token[rows.work.sample]
    if places or rows.pooling:
        wanted = np.concatenate((wanted, *_others(rows, work, last_token, places)))

    if segments is not None:
        segments.begin(rows.adapters[owner], wanted)
    drawn = np.where(token_ids == SAMPLED, owner, -1)
    arrays: list[Array] = [token_ids, positions, slots, wanted, drawn, *carried]
    lengths = computed + counts
    if runs_on(device):
        tables = rows.tables[row, : -(-int(lengths.max()) // rows.page_size)]
        host = host_rows(counts, lengths, tables, queries_a_tile, invariant)
        *moved, pages_of, contexts, tiles = to_device([*arrays, *host[:3]], device)
        attention = {window: paged_rows(pages_of, contexts, tiles, host.longest, window, host) for window in windows}
    else:
        moved = to_device(arrays, device)
        attention = _attention(rows, row, counts, lengths, windows, device, dtype, invariant)
    ids, where, into, at, owners, *rest = moved
    if (drawn >= 0).any():
        assert last is not None, "only a device is ahead of its host"
        ids = last.filled(ids, owners)
    return StepInputs(ids, where, into, attention, at, segments), rest


def _attention(
    rows: Rows,
    row: Int64,
    counts: Int64,
    lengths: Int64,
    windows: Sequence[int | None],
    device: torch.device,
    dtype: torch.dtype,
    invariant: bool,
) -> dict[int | None, AttentionBatch]:
    """A plan for each window; while no row has outgrown a window, it is the plan without one."""
    longest = int(lengths.max())
    tables = torch.from_numpy(rows.tables[row, : -(-longest // rows.page_size)])
    plans: dict[int | None, AttentionBatch] = {}

    def plan(window: int | None) -> AttentionBatch:
        if window not in plans:
            plans[window] = plan_attention(
                counts, lengths, tables, rows.page_size,
                device=device, dtype=dtype, window=window, invariant=invariant,
            )  # fmt: skip
        return plans[window]

    return {window: plan(None if window is not None and window >= longest else window) for window in windows}


def _others(rows: Rows, work: Sequence[RowWork], last_token: Int64, places: Sequence[Places]) -> list[Int64]:
    """Flat tokens that are wanted beside those of sampled rows."""
    # Rows that decode without an item come behind `work`, and nothing else is wanted of them.
    last = {item.row: (at, item.computed + item.count) for item, at in zip(work, last_token.tolist(), strict=False)}
    firsts = [(last[place.row][0] + 1 - last[place.row][1] + place.first, place.length) for place in places]
    firsts += [(last[part.row][0] + 1 - part.length, part.length) for part in pooled_parts(rows, work)]
    return [np.arange(at, at + length) for at, length in firsts]
