"""Masks: bit by bit what the packed words say, for the masked rows only; what leaves no token is told, not drawn."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from headway.core.sampling import SamplingParams
from headway.worker.plan import NONE_ALLOWED, NOT_A_NUMBER
from headway.worker.sampling import masks
from headway.worker.sampling.masks import apply_masks, mask_bytes
from headway.worker.sampling.sampler import Sampler

CPU = torch.device("cpu")
WAYS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(temperature=1.0, seed=3, top_k=4, top_p=0.9),
    SamplingParams(temperature=0.7, seed=4, repetition_penalty=1.3),
]


def pack(allowed: set[int], vocab_size: int) -> bytes:
    words = [0] * (mask_bytes(vocab_size) // 4)
    for token in allowed:
        words[token // 32] |= 1 << token % 32
    return np.array(words, "<u4").tobytes()


@settings(max_examples=60, deadline=None)
@given(vocab_size=st.sampled_from([1, 31, 32, 33, 100]), rows=st.permutations(range(4)), data=st.data())
def test_bits(vocab_size: int, rows: list[int], data: st.DataObject) -> None:
    masked = rows[: data.draw(st.integers(0, 4))]
    allowed = [data.draw(st.sets(st.integers(0, vocab_size - 1))) for _ in masked]
    logits = torch.randn(4, vocab_size)
    expected = logits.clone()
    for row, ids in zip(masked, allowed, strict=True):
        for token in set(range(vocab_size)) - ids:
            expected[row, token] = -torch.inf
    if masked:
        apply_masks(logits, masked, [pack(ids, vocab_size) for ids in allowed])
    assert torch.equal(logits, expected)


def test_bits_are_the_same_as_a_device_unpacks_them() -> None:
    for vocab_size in (1, 31, 32, 33, 100):
        packed = np.random.default_rng(vocab_size).integers(0, 256, (3, mask_bytes(vocab_size)), np.uint8)
        ways = [masks._banned(packed, vocab_size, CPU), masks._banned_on_device(packed, vocab_size, CPU)]
        assert ways[0].shape == (3, vocab_size) and torch.equal(*ways)


def test_a_mask_of_another_length() -> None:
    with pytest.raises(ValueError, match="a mask over 33 tokens has 8 bytes, got 4"):
        apply_masks(torch.zeros(1, 33), [0], [bytes(4)])


@pytest.mark.parametrize("spoilt", range(len(WAYS)))
def test_no_token_and_no_number_end_one_row_only(spoilt: int) -> None:
    """Greedy rows beside drawn ones, with filters and without: each in turn has nothing to choose from."""
    vocab = 70
    logits = torch.randn(len(WAYS), vocab, generator=torch.Generator().manual_seed(1))

    def sample(logits: torch.Tensor, masks: list[tuple[int, bytes]]) -> list[int]:
        sampler = Sampler(vocab, CPU)
        for row, params in enumerate(WAYS):
            sampler.add(row, params, np.array([1, 2]), 1)
        return sampler.sample(logits.clone(), list(range(len(WAYS))), [9] * len(WAYS), masks)

    free = sample(logits, [])
    assert all(token >= 0 for token in free)
    others = [token for row, token in enumerate(free) if row != spoilt]
    for change, verdict in (("mask", NONE_ALLOWED), ("nan", NOT_A_NUMBER), ("inf", NOT_A_NUMBER)):
        wrong = logits.clone()
        if change != "mask":
            wrong[spoilt, 5 if change == "nan" else 6] = float(change)
        found = sample(wrong, [(spoilt, bytes(mask_bytes(vocab)))] if change == "mask" else [])
        assert found.pop(spoilt) == verdict and found == others
    for token in (0, 31, 32, 69):
        found = sample(logits, [(spoilt, pack({token}, vocab))])
        assert found.pop(spoilt) == token and found == others
