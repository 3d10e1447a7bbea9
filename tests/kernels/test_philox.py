"""Philox4x32-10 against the known answers that its authors publish (Random123, kat_vectors)."""

from __future__ import annotations

import pytest
import torch

from headway.kernels.philox import philox

KNOWN = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    words = philox(tuple(torch.tensor([word]) for word in counter), tuple(torch.tensor([word]) for word in key))
    assert tuple(int(word) for word in words) == expected


def test_broadcasting_changes_nothing() -> None:
    """Words that start narrow come out as if each had been full from the start."""
    blocks, positions = torch.arange(5).unsqueeze(0), torch.tensor([[3], [9]])
    zero, keys = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[7], [2**32 - 1]])
    broadcast = philox((blocks, positions, zero, zero), (keys, keys))
    full = [word.expand(2, 5).contiguous() for word in (blocks, positions, zero, zero, keys)]
    for found, expected in zip(broadcast, philox(tuple(full[:4]), (full[4], full[4])), strict=True):
        assert found.shape == (2, 5)
        assert torch.equal(found, expected)
