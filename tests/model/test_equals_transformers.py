"""Greedy tokens and logits are those of transformers, for every shape of model and group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import RankGroup
from script import Script
from tiny_llamas import SHAPES, VOCAB, Oracle

# Both compute in float32, in different orders of summation.
LOGITS_TOLERANCE = 2e-4
NEW_TOKENS = 12


def prompts(vocab: int) -> list[list[int]]:
    draw = np.random.default_rng(7)
    return [draw.integers(2, vocab, size).tolist() for size in (1, 5, 8, 17, 40)]


@pytest.mark.parametrize("name", [*SHAPES, "demo"])
def test_greedy_tokens_and_logits(
    name: str, group: RankGroup, checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]
) -> None:
    info = group.load(checkpoint(name))[0]
    assert info.vocab_size == (4096 if name == "demo" else VOCAB)
    script = Script(group)
    for index, prompt in enumerate(prompts(info.vocab_size)):
        script.add(index, prompt)
    script.finish(NEW_TOKENS)
    for row in script.rows.values():
        assert row.output == oracle(name).greedy(row.tokens[: row.prompt], NEW_TOKENS)
        expected = oracle(name).logits(row.tokens).numpy()[row.prompt - 1 : -1]
        np.testing.assert_allclose(np.stack(row.logits), expected, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE)


def test_greedy_rows_differ(oracle: Callable[[str], Oracle]) -> None:
    """The comparison would prove little if the models said the same whatever came before."""
    outputs = {tuple(oracle("gqa-tied").greedy(prompt, NEW_TOKENS)) for prompt in prompts(VOCAB)}
    assert len(outputs) == len(prompts(VOCAB))
    assert all(len(set(output)) > 2 for output in outputs)
