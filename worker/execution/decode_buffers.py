"""The memory that a captured decode step reads: in one place for each number of rows, filled anew for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.grouped_lora_tiles import NO_SLOT, TILE_ROWS
from ..plan import SAMPLED
from .rows import Rows
from .transfer import ALIGNMENT, Array, packed, unpacked

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
ROW_BYTES = 256  # of one row's numbers, sampling parameters and its adapter's tile included, generously


class DecodeRows(NamedTuple):
    """One token for each row. token_ids, positions, slots: [rows] int64; drawn: [rows] int64, the row whose last token
    only the device knows, else -1; lengths: [rows] int32; tables: [rows, width] int32."""

    token_ids: Int64
    positions: Int64
    slots: Int64
    drawn: Int64
    lengths: Int32
    tables: Int32


class DecodeViews(NamedTuple):
    """The same on the device, but for the tables."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    drawn: Tensor
    lengths: Tensor


def decode_rows(rows: Rows) -> DecodeRows:
    """Of the plan that `rows` has applied last, in its order: work with one token each."""
    row, positions = rows.work.row, rows.work.computed
    token_ids = rows.tokens[row, positions].astype(np.int64)
    pages = rows.tables[row, positions // rows.page_size].astype(np.int64)
    slots = pages * rows.page_size + positions % rows.page_size
    drawn = np.where(token_ids == SAMPLED, row, -1)
    tables = rows.tables[row, : int(positions.max()) // rows.page_size + 1]
    return DecodeRows(token_ids, positions, slots, drawn, (positions + 1).astype(np.int32), tables)


def padded(found: DecodeRows, size: int, page_size: int, first_page: int) -> DecodeRows:
    """Filled up to `size` rows with rows that harm nobody: of one token, whose keys and values go to slots of their own
    in the pages from `first_page` on, where they also look. Who asks has to leave their results alone."""
    have = len(found.token_ids)
    extra = np.arange(have, size)
    ones = np.ones(size - have, np.int32)
    slots = first_page * page_size + extra
    tables = np.zeros((size, found.tables.shape[1]), np.int32)
    tables[:have] = found.tables
    tables[have:, 0] = slots // page_size
    return DecodeRows(
        np.concatenate((found.token_ids, 0 * extra)),
        np.concatenate((found.positions, 0 * extra)),
        np.concatenate((found.slots, slots)),
        np.concatenate((found.drawn, 0 * extra - 1)),
        np.concatenate((found.lengths, ones)),
        tables,
    )


_NONE = np.empty(0, np.int64)
NOBODY = DecodeRows(_NONE, _NONE, _NONE, _NONE, np.empty(0, np.int32), np.empty((0, 1), np.int32))


class DecodeBuffers:
    """tables: [rows, width] int32; tiles: [tiles, 1 + TILE_ROWS] int32, which rows run with which adapter.

    All else lies in one stretch that a step fills by one copy: first what is read at fixed places, then the block
    tables as wide as this step needs them, which are spread from there, then what else the step carries, then the tiles
    of a step with adapters, which are spread, too.
    """

    def __init__(self, rows: int, width: int, tiles: int, device: torch.device) -> None:
        self.tiles = torch.full((tiles, 1 + TILE_ROWS), NO_SLOT, dtype=torch.int32, device=device)
        self.tables = torch.zeros((rows, width), dtype=torch.int32, device=device)
        size = rows * (ROW_BYTES + 4 * width) + 64 * ALIGNMENT
        self._staging = torch.zeros(size, dtype=torch.uint8, device=device)
        self._views: dict[int, DecodeViews] = {}

    def views(self, size: int) -> DecodeViews:
        """What a step of `size` rows reads: the same tensors whenever it is asked for."""
        if size not in self._views:
            like = padded(NOBODY, size, 1, 0)
            self._views[size] = DecodeViews(*unpacked(self._staging, like[:5]))
        return self._views[size]

    def fill(self, rows: DecodeRows, carried: Sequence[Array] = (), tiles: Int32 | None = None) -> list[Tensor]:
        """Puts the rows in place, as many as the step has, and the tiles of a step with adapters; returns `carried` on
        the device, good until the next."""
        arrays: list[Array] = [*rows, *carried, *([] if tiles is None else [tiles])]
        host = packed(arrays, pinned=self._staging.device.type == "cuda")
        self._staging[: len(host)].copy_(host, non_blocking=True)
        moved = unpacked(self._staging, arrays)
        size, width = rows.tables.shape
        self.tables[:size, :width].copy_(moved[len(rows) - 1])
        if tiles is not None:
            self.tiles[: len(tiles)].copy_(moved.pop())
        return moved[len(rows) :]
