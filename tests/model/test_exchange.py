"""Exchanges over one mapping, in C and in Python, and of both in one group: the same bits, in the order of ranks."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.native import AVAILABLE, native
from headway.worker.parallel.errors import RankLost
from headway.worker.parallel.native_group import NativeGroup
from headway.worker.parallel.shared_memory import LINE, PlainGroup, SharedMemoryGroup

CAPACITY = 256  # bytes: little tensors take several pieces

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="not built, or turned off")


def groups(kinds: list[type[PlainGroup] | type[NativeGroup]], timeout_s: float = 20.0) -> list[SharedMemoryGroup]:
    size = len(kinds)
    memory = mmap.mmap(-1, size * LINE + 2 * size * CAPACITY)
    return [
        NativeGroup(memory, rank, size, CAPACITY, timeout_s, spin=False)
        if kind is NativeGroup
        else PlainGroup(memory, rank, size, CAPACITY, timeout_s)
        for rank, kind in enumerate(kinds)
    ]


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([PlainGroup, NativeGroup]), min_size=2, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 200)), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_sums_and_gathers(kinds: list[type], dtype: torch.dtype, shapes: list[tuple[int, int]], seed: int) -> None:
    """By definition: half types are summed in float32 and rounded once."""
    random = torch.Generator().manual_seed(seed)
    inputs = [[torch.randn(shape, generator=random).to(dtype) for shape in shapes] for _ in kinds]

    def work(group: SharedMemoryGroup, own: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        return [group.all_reduce(x.clone()) for x in own], [group.gather(x) for x in own]

    with ThreadPoolExecutor(len(kinds)) as pool:
        answers = list(pool.map(work, groups(kinds), inputs))
    wide = torch.promote_types(dtype, torch.float32)
    for index, parts in enumerate(zip(*inputs, strict=True)):
        expected = parts[0].to(wide)
        for part in parts[1:]:
            expected = expected + part.to(wide)
        assert all(torch.equal(sums[index], expected.to(dtype)) for sums, _ in answers)
        assert [gathered[index] is None for _, gathered in answers] == [False] + [True] * (len(kinds) - 1)
        assert torch.equal(answers[0][1][index], torch.cat(parts, -1))


def test_numbers_that_are_none_go_through() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.inf, 3e38], dtype=torch.bfloat16)
    y = torch.tensor([1.0, -torch.inf, -torch.inf, 1.0, 3e38], dtype=torch.bfloat16)
    with ThreadPoolExecutor(2) as pool:
        found, _ = pool.map(lambda group, own: group.all_reduce(own), groups([NativeGroup] * 2), [x.clone(), y.clone()])
    assert torch.equal(found, x + y) or torch.equal(found.isnan(), (x + y).isnan())
    torch.testing.assert_close(found, x + y, equal_nan=True)


@pytest.mark.parametrize("kind", [PlainGroup, NativeGroup])
def test_a_rank_that_does_not_come(kind: type) -> None:
    group, _ = groups([kind] * 2, timeout_s=20.0)
    group.timeout_s = 0.05
    with pytest.raises(RankLost, match=r"rank 1 did not reach .* 0\.05 s"):
        group.all_reduce(torch.ones(4))
    with pytest.raises(RankLost, match="rank 1"):
        group.gather(torch.ones(4))


def test_ranks_that_cannot_be() -> None:
    for rank, size in ((2, 2), (0, 65), (-1, 2)):
        with pytest.raises(ValueError, match=r"ranks"):
            native.exchange(0, rank, size, CAPACITY, 1, 1.0)
