"""Log probabilities are those of transformers, for output and prompt, whatever the group, chunks and sampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_group import RankGroup
from script import GREEDY, Place, Script
from tiny_llamas import VOCAB, Oracle

from headway.core.sampling import SamplingParams
from headway.worker.execution import scoring

MODEL = "gqa-tied"
TOLERANCE = 2e-4
NEW_TOKENS = 6
PENALIZED = SamplingParams(temperature=1.4, seed=3, repetition_penalty=1.5, top_k=40)
# (prompt, sampling, logprobs and prompt_logprobs): neighbours that ask for other things, or for nothing
ROWS = [
    (1, GREEDY, (0, 0)),
    (23, GREEDY, (5, 3)),
    (30, PENALIZED, (20, -1)),
    (17, GREEDY, (-1, -1)),
    (12, PENALIZED, (-1, 20)),
    (9, GREEDY, (2, 0)),
]


def prompt(size: int) -> list[int]:
    return np.random.default_rng(size).integers(2, VOCAB, size).tolist()


def check(places: list[Place], expected: torch.Tensor, tokens: list[int], top: int) -> None:
    """`expected`: log probabilities [places, vocabulary] by transformers; `tokens`: what stands there."""
    assert len(places) == len(tokens)
    for (ids, values), logprobs, token in zip(places, expected.numpy(), tokens, strict=True):
        assert len(ids) == len(values) == 1 + top and ids[0] == token
        np.testing.assert_allclose(values, logprobs[ids], atol=TOLERANCE)
        assert sorted(values[1:], reverse=True) == list(values[1:]) and len(set(ids[1:])) == top
        np.testing.assert_allclose(values[1:], np.sort(logprobs)[::-1][:top], atol=TOLERANCE)


@pytest.mark.parametrize("chunk", [1000, 5])
def test_of_output_and_prompt(
    group: RankGroup,
    checkpoint: Callable[[str], Path],
    oracle: Callable[[str], Oracle],
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "PIECE_ELEMENTS", 4 * VOCAB)  # where the rank runs in this process
    group.load(checkpoint(MODEL))
    plain, script = Script(group), Script(group)
    for index, (size, sampling, _) in enumerate(ROWS):
        plain.add(index, prompt(size), sampling)
    plain.finish(NEW_TOKENS, chunk)
    outputs = [row.output for row in plain.rows.values()]
    for index in list(plain.rows):
        plain.free(index)
    plain.turn({})
    for index, (size, sampling, tops) in enumerate(ROWS):
        script.add(index, prompt(size), sampling, tops=tops)
    script.finish(NEW_TOKENS, chunk)
    assert [row.output for row in script.rows.values()] == outputs, "asking changes no token"
    for index, (size, _, (top, prompt_top)) in enumerate(ROWS):
        row = script.rows[index]
        expected = oracle(MODEL).logits(row.tokens).log_softmax(-1)
        if top < 0:
            assert not row.logprobs
        else:
            check(row.logprobs, expected[size - 1 : -1], row.output, top)
        if prompt_top < 0:
            assert not row.prompt_logprobs
        else:
            check(row.prompt_logprobs, expected[: size - 1], row.tokens[1:size], prompt_top)


def test_a_row_that_comes_back_is_scored_again_from_its_start(
    group: RankGroup, checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]
) -> None:
    """In the middle of its prompt a row leaves; the row number goes to one that asks for nothing, and then back."""
    group.load(checkpoint(MODEL))
    script = Script(group)
    script.add(0, prompt(20), tops=(1, 2))
    script.turn({0: 8})
    assert len(script.rows[0].prompt_logprobs) == 8
    script.free(0)
    other = script.add(0, prompt(11))
    script.turn({0: 11})
    assert not other.logprobs and not other.prompt_logprobs
    script.free(0)
    again = script.add(0, prompt(20), tops=(1, 2))
    script.finish(2, chunk=7)
    expected = oracle(MODEL).logits(again.tokens).log_softmax(-1)
    check(again.prompt_logprobs, expected[:19], again.tokens[1:20], 2)
    check(again.logprobs, expected[19:-1], again.output, 1)
