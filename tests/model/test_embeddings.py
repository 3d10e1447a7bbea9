"""Embeddings are the hidden states of transformers, however their prompt is parted and whatever runs beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import RankGroup
from script import Row, Script
from tiny_llamas import Oracle

from headway.proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN

TOLERANCE = 5e-5  # both compute in float32, in different orders of summation
CHUNK = 13
NEW_TOKENS = 6


def check(row: Row, oracle: Oracle) -> None:
    states = oracle.hidden(row.tokens).numpy().astype(np.float64)
    expected = states.mean(0) if row.pooling == POOLING_MEAN else states[-1]
    assert row.embedding is not None and row.output == []
    np.testing.assert_allclose(row.embedding, expected, atol=TOLERANCE, rtol=TOLERANCE)


def run(script: Script) -> None:
    """In chunks, and the rows that generate one token a step when they can."""
    while True:
        left = {index: script.remaining(index) for index in script.rows}
        counts = {
            index: min(CHUNK, left[index])
            for index, row in script.rows.items()
            if left[index] and (row.pooling or len(row.output) < NEW_TOKENS)
        }
        if not counts:
            return
        script.turn(counts)


@pytest.mark.parametrize("name", ["gqa-tied", "demo"])
def test_among_rows_that_generate(
    name: str, group: RankGroup, checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]
) -> None:
    info = group.load(checkpoint(name))[0]
    draw = np.random.default_rng(3)
    prompts = [draw.integers(2, info.vocab_size, size).tolist() for size in (1, CHUNK, 40, 100)]
    script = Script(group, pages=128)
    asked = [
        script.add(2 * index + (pooling == POOLING_MEAN), prompt, pooling=pooling)
        for index, prompt in enumerate(prompts)
        for pooling in (POOLING_LAST, POOLING_MEAN)
    ]
    plain = script.add(8, prompts[2])
    scored = script.add(9, prompts[2], tops=(1, 1))
    run(script)
    for row in asked:
        check(row, oracle(name))
    assert plain.output == scored.output == oracle(name).greedy(prompts[2], NEW_TOKENS)
    assert len(scored.prompt_logprobs) == len(prompts[2]) - 1


def test_neighbours_and_parts_leave_no_trace(group: RankGroup, checkpoint: Callable[[str], Path]) -> None:
    """Rows that generate get the very logits that they get without embeddings beside them."""
    group.load(checkpoint("gqa-tied"))
    script = Script(group, pages=128)
    alone = script.add(0, [5, 6, 7])
    run(script)
    among = Script(group, pages=128)
    among.step = script.step
    among.freed = [0]
    row = among.add(1, [5, 6, 7])
    embedded = among.add(2, list(range(2, 100)), pooling=POOLING_MEAN)
    run(among)
    assert embedded.embedding is not None
    np.testing.assert_allclose(np.stack(row.logits), np.stack(alone.logits), atol=1e-5, rtol=1e-5)
    assert row.output == alone.output


def test_after_preemption_and_with_a_cached_prefix(
    group: RankGroup, checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]
) -> None:
    """A row that lost its place begins its sum again; the last token's state may stand on pages of another row."""
    group.load(checkpoint("gqa-tied"))
    prompt = np.random.default_rng(5).integers(2, 128, 50).tolist()
    script = Script(group, pages=64)
    script.add(0, prompt, pooling=POOLING_MEAN)
    script.turn({0: 20})
    script.free(0)
    mean = script.add(0, prompt, pooling=POOLING_MEAN)
    run(script)
    last = script.add(1, prompt, pooling=POOLING_LAST, shared=mean.pages[:6])
    assert last.computed == 48
    run(script)
    check(mean, oracle("gqa-tied"))
    check(last, oracle("gqa-tied"))
