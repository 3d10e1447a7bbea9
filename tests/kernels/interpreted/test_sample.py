"""Sampling on the device against sorting, and its noise against torch's Philox."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headway.kernels import sample as module
from headway.kernels.penalties import Penalty, penalize
from headway.kernels.sample import Draws, gumbel, sample, sample_reference


def draws(rows: int, temperature: float, top_k: int, top_p: float, min_p: float, seed: int) -> Draws:
    def floats(value: float) -> Tensor:
        return torch.full((rows,), value)

    seeds = torch.tensor([(seed * (row + 1)) % 2**63 - row * 2**61 for row in range(rows)])
    return Draws(
        floats(temperature), torch.full((rows,), top_k, dtype=torch.int32), floats(top_p), floats(min_p), seeds,
        torch.arange(rows) + 7, torch.arange(rows) % 3,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([5, 300, 1500]),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.sampled_from([0, 1, 7, 10_000]),
    st.sampled_from([1.0, 0.9, 0.3, 1e-4]),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.integers(0, 2**63 - 1),
)
def test_it_draws_as_sorting_does(
    vocab: int, temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    torch.manual_seed(seed % 2**31)
    logits = torch.randn(2, vocab) * 4
    logits[0, : vocab // 2] = logits[0, 0]  # equals
    logits[1, 1::3] = -torch.inf  # ruled out
    how = draws(2, temperature, top_k, top_p, min_p, seed)
    found = sample(logits, how, filtered=top_k > 0 or top_p < 1.0 or min_p > 0.0)
    assert torch.equal(found, sample_reference(logits, how))


def test_each_row_by_its_own_rules() -> None:
    torch.manual_seed(3)
    logits = torch.randn(4, 300)
    how = Draws(
        torch.tensor([0.0, 1.0, 1.0, 0.7]), torch.tensor([0, 3, 0, 0], dtype=torch.int32),
        torch.tensor([1.0, 1.0, 0.5, 1.0]), torch.tensor([0.0, 0.0, 0.0, 0.2]), torch.tensor([1, -2, 3, 4]),
        torch.tensor([1, 2, 3, 4]), torch.tensor([0, 1, 0, 0]),
    )  # fmt: skip
    together = sample(logits, how, filtered=True)
    assert torch.equal(together, sample_reference(logits, how))
    for row in range(4):
        own = Draws(*(part[row : row + 1] for part in how))
        assert torch.equal(sample(logits[row : row + 1].contiguous(), own, filtered=True), together[row : row + 1])


def test_the_two_zeros_are_equals() -> None:
    how = draws(4, 0.7, 1, 0.5, 1.0, 5)
    logits = torch.zeros(4, 300)
    logits[:, ::2] = -0.0
    found = sample(logits, how, filtered=True)
    assert torch.equal(found, sample_reference(logits, how))
    assert torch.equal(found, gumbel(how, 300).argmax(-1)), "all of them are in the draw"


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([1, 5, 1500]),
    st.sampled_from([1.0, 1.3, 0.5]),
    st.sampled_from([0.0, 0.7, -2.0]),
    st.sampled_from([0.0, 1.5, -0.5]),
    st.integers(0, 2**31),
)
def test_penalties(vocab: int, repetition: float, frequency: float, presence: float, seed: int) -> None:
    """Of some of the rows, whose counts lie anywhere."""
    torch.manual_seed(seed)
    logits, output = torch.randn(4, vocab), torch.randint(0, 3, (2, vocab)).float()
    seen = torch.rand(2, vocab) < 0.5
    penalties = [
        Penalty(3, seen[0], output[0], repetition, frequency, presence), Penalty(1, seen[1], output[1], 1.0, 0.0, 0.0)
    ]  # fmt: skip
    own = logits[3]
    wanted = torch.where(seen[0], torch.where(own > 0, own / repetition, own * repetition), own)
    wanted = wanted - output[0] * frequency - (output[0] > 0) * presence
    found = logits.clone()
    penalize(found, penalties)
    torch.testing.assert_close(found[3], wanted)
    assert torch.equal(found[:3], logits[:3])


@pytest.mark.parametrize("vocab", [3, 4099])
def test_unfiltered_rows_follow_their_noise(vocab: int) -> None:
    how = draws(3, 1.0, 0, 1.0, 0.0, 12345)
    assert torch.equal(sample(torch.zeros(3, vocab), how, filtered=False), gumbel(how, vocab).argmax(-1))


def test_without_filters_nothing_is_searched_and_the_highest_logit_is_found_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(4)
    how, logits = draws(3, 0.8, 0, 1.0, 0.0, 77), torch.randn(3, 3000)
    wanted = sample_reference(logits, how)
    monkeypatch.setattr(module, "floor_kernel", None)
    assert torch.equal(sample(logits, how, filtered=False), wanted)
    highest = logits.amax(-1)
    monkeypatch.setattr(Tensor, "amax", None)
    assert torch.equal(sample(logits, how, filtered=False, best=highest), wanted)


def test_the_search_ends_whatever_the_logits_are() -> None:
    """And finds the floor where the keys of what is kept and of what is not lie as far apart as there is."""
    how = draws(5, 0.9, 2, 0.5, 0.3, 9)
    logits = torch.full((5, 40), -3e38)
    logits[0, 7], logits[0, 9] = 3e38, 3e38
    logits[1] = torch.nan
    logits[2, 3] = -torch.nan
    logits[3] = torch.inf
    logits[4] = -torch.inf
    found = sample(logits, how, filtered=True)
    assert found[0].item() in (7, 9) and found.shape == (5,)
