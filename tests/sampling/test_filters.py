"""Filters and penalties against the logits processors of transformers, composed in our order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headway.core.sampling import SamplingParams
from headway.kernels.penalties import penalize
from headway.worker.sampling.filters import least_kept
from headway.worker.sampling.penalties import PenaltyCounts

VOCAB = 300


def ours(logits: torch.Tensor, min_p: float, top_k: int, top_p: float) -> torch.Tensor:
    """Filtered scores in the vocabulary's order."""
    rows = len(logits)
    floor = least_kept(logits, torch.full((rows,), min_p), torch.full((rows,), top_k), torch.full((rows,), top_p))
    return logits.masked_fill(logits < floor, -torch.inf)


def theirs(logits: torch.Tensor, min_p: float, top_k: int, top_p: float) -> torch.Tensor:
    chain = LogitsProcessorList()
    if min_p:
        chain.append(MinPLogitsWarper(min_p))
    if top_k:
        chain.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        chain.append(TopPLogitsWarper(top_p))
    return chain(torch.zeros(len(logits), 1, dtype=torch.long), logits)


@settings(max_examples=150, deadline=None, derandomize=True)  # rounding at a border may fall either way
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    top_k=st.sampled_from([0, 1, 2, 50, VOCAB, 10**6]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.01]),
)
def test_filters(seed: int, spread: float, min_p: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(seed)) * spread
    expected = theirs(logits.clone(), min_p, top_k, top_p)
    assert torch.equal(ours(logits, min_p, top_k, top_p), expected)


def test_rows_have_filters_of_their_own() -> None:
    logits = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(1))
    min_p, top_k, top_p = torch.tensor([0.0, 0.2, 0.0, 0.0]), torch.tensor([3, 0, 0, 0]), torch.tensor([1, 1, 0.5, 1.0])
    found = logits.masked_fill(logits < least_kept(logits, min_p, top_k, top_p), -torch.inf)
    for row in range(4):
        expected = theirs(logits[row : row + 1].clone(), float(min_p[row]), int(top_k[row]), float(top_p[row]))[0]
        assert torch.equal(found[row], expected)
    assert not bool(found[3].isinf().any())


@pytest.mark.parametrize("penalty", [0.5, 1.3, 10.0])
def test_repetition_penalty(penalty: float) -> None:
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(2)) * 4
    tokens = torch.tensor([[5, 7, 7, 200, 12]])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits.clone())
    counts = PenaltyCounts(VOCAB, torch.device("cpu"))
    counts.count(tokens[0].numpy(), 3)
    found = logits.clone()
    penalize(found, [counts.penalty(0, SamplingParams(repetition_penalty=penalty))])
    torch.testing.assert_close(found, expected)


def test_presence_and_frequency_count_output_only() -> None:
    counts = PenaltyCounts(VOCAB, torch.device("cpu"))
    counts.count(torch.tensor([1, 2, 2, 3, 3, 3]).numpy(), 3)  # prompt 1 2 2, output 3 3 3
    counts.count(torch.tensor([4]).numpy(), 0)
    logits = torch.zeros(1, VOCAB)
    penalize(logits, [counts.penalty(0, SamplingParams(presence_penalty=0.5, frequency_penalty=0.25))])
    changed = {token: float(value) for token, value in enumerate(logits[0]) if value}
    assert changed == {3: -0.5 - 3 * 0.25, 4: -0.5 - 0.25}
