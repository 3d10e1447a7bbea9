"""Grouped low-rank updates against the definition, from slots with other adapters' and nobody's numbers around."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.grouped_lora import LoraPiece, pack_down
from headway.kernels.grouped_lora_tiles import (
    TILE_ROWS,
    LoraSlots,
    column_blocks,
    grouped_lora_tiles,
    grouped_lora_tiles_reference,
    lora_tiles,
    most_tiles,
    plan_lora_tiles,
)
from headway.worker.adapters.reader import Packed
from headway.worker.adapters.segments import RowSegments, TiledSegments
from headway.worker.adapters.sites import Projection, Site
from headway.worker.adapters.slots import PackedSlots, UniformSlots
from headway.worker.model.linear import Linear
from headway.worker.model.split import Part

DEVICE = torch.get_default_device()


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.integers(-1, 3), min_size=0, max_size=20),
    st.sampled_from([(24,), (40, 8, 8), (65, 100)]),
    st.sampled_from([(48, 1), (1100, 16), (130, 70)]),
    st.sampled_from([torch.float32, torch.float16]),
    st.integers(0, 2),
    st.integers(0, 2**31),
)
def test_tiles(
    owners: list[int], widths: tuple[int, ...], sizes: tuple[int, int], dtype: torch.dtype, spare: int, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs, most = sizes
    ranks = torch.randint(0, most + 1, (4, len(widths)), dtype=torch.int32)
    ranks[3] = 0  # an adapter that leaves this product alone
    down = torch.full((4, len(widths), most, inputs), torch.nan, dtype=dtype)
    up = torch.full((4, sum(widths), most), torch.nan, dtype=dtype)
    for slot in range(4):
        for projection, (stop, width) in enumerate(zip(np.cumsum(widths), widths, strict=True)):
            rank = int(ranks[slot, projection])
            down[slot, projection, :rank] = (torch.randn(rank, inputs) / inputs**0.5).to(dtype)
            up[slot, stop - width : stop, :rank] = torch.randn(width, rank).to(dtype)
    slots = LoraSlots(down, up, ranks, column_blocks(widths))
    x, before = torch.randn(len(owners), inputs).to(dtype), torch.randn(len(owners), sum(widths)).to(dtype)
    planned = lora_tiles(np.array(owners, np.int32), least=spare)
    assert len(planned) <= max(spare, most_tiles(len(owners), 4))
    tiles = torch.from_numpy(planned).to(DEVICE)
    found = grouped_lora_tiles(before.clone(), x, slots, tiles)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 3e-2}
    torch.testing.assert_close(found, grouped_lora_tiles_reference(before, x, slots, tiles), **close)
    alone = [token for token, owner in enumerate(owners) if owner in (-1, 3)]
    assert torch.equal(found[alone], before[alone])


def test_a_tile_has_one_adapter_and_every_token_one_place() -> None:
    owners = np.array([2] * (TILE_ROWS + 3) + [-1, 0, 2, -1], np.int32)
    tiles = lora_tiles(owners, least=6)
    assert tiles[:, 0].tolist() == [0, 2, 2, -1, -1, -1]
    placed = [(slot, token) for slot, *tokens in tiles.tolist() for token in tokens if token >= 0]
    assert sorted(placed) == sorted((int(slot), token) for token, slot in enumerate(owners) if slot >= 0)
    assert len(plan_lora_tiles(np.array([-1, -1], np.int32), DEVICE)) == 0


def test_slots_of_one_shape_say_what_packed_ones_say() -> None:
    """Refilled, and narrowed to the wanted tokens as in a model's last layer."""
    torch.manual_seed(1)
    linear = Linear(torch.randn(32, 20))
    widths = (24, 4, 4)
    projections = tuple(Projection(f"p{index}", width, Part(0, width)) for index, width in enumerate(widths))
    site = Site(linear, 20, Part(0, 20), projections)
    rows, tiles = RowSegments(DEVICE), TiledSegments(DEVICE)
    kinds = (
        PackedSlots(site, 3, 8, torch.float32, DEVICE, rows),
        UniformSlots(site, 3, 8, torch.float32, DEVICE, tiles),
    )

    def adapter(ranks: tuple[int, ...]) -> Packed:
        pieces, first, start = [], 0, 0
        for width, rank in zip(widths, ranks, strict=True):
            if rank:
                pieces.append(LoraPiece(start, start + width, first, first + rank, torch.randn(rank, width)))
            first, start = first + rank, start + width
        return pack_down(torch.randn(20, first)), pieces

    fills = [(0, adapter((8, 8, 8))), (1, adapter((0, 1, 0))), (2, None), (0, adapter((3, 0, 5)))]
    x, before = torch.randn(6, 20), torch.randn(6, 32)
    for slot, packed in fills:
        for kind, segments in zip(kinds, (rows, tiles), strict=True):
            kind.fill(slot, packed)
            segments.begin(np.array([0, 1, -1, 2, 0, 1], np.int32), np.array([4, 2]))
    for count in (6, 2):
        found = [kind.add(before[:count].clone(), x[:count]) for kind in kinds]
        torch.testing.assert_close(found[0], found[1])
        for segments in (rows, tiles):
            segments.narrow()
    tiles.begin(np.array([-1, -1], np.int32), np.array([0]))
    assert torch.equal(kinds[1].add(before.clone(), x), before)
