"""Models computed in bfloat16 on CPU: near float32, and the same to the last bit however the work is cut and shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import PAGE_SIZE, RankGroup
from script import Row, Script

from headway.kernels.native import AVAILABLE

NEW_TOKENS = 24
PROMPTS = (1, PAGE_SIZE, 19, 70)
# The largest difference of a logit that eight bits of mantissa make of numbers around 10, six layers deep.
TOLERANCE = 0.5


def run(script: Script, prompts: list[list[int]], chunk: int) -> list[Row]:
    """The rows of these prompts, side by side, gone when they are done."""
    rows = [script.add(index, prompt) for index, prompt in enumerate(prompts)]
    script.finish(NEW_TOKENS, chunk)
    for index in range(len(rows)):
        script.free(index)
    return rows


@pytest.mark.skipif(not AVAILABLE, reason="torch's products in bfloat16 depend on the number of rows")
def test_the_demo_model(group: RankGroup, checkpoint: Callable[[str], Path]) -> None:
    """Every token that bfloat16 chose is the best in float32, or as good as the best."""
    info = group.load(checkpoint("demo"), dtype="bfloat16")[0]
    assert info.dtype == "bfloat16"
    draw = np.random.default_rng(7)
    prompts = [draw.integers(5, info.vocab_size, size).tolist() for size in PROMPTS]
    script = Script(group)
    together, chunked = run(script, prompts, 1000), run(script, prompts, 5)
    alone = [row for prompt in prompts for row in run(script, [prompt], 13)]
    for found in (chunked, alone):
        for row, same in zip(together, found, strict=True):
            assert row.output == same.output
            assert all(np.array_equal(a, b) for a, b in zip(row.logits, same.logits, strict=True))

    group.load(checkpoint("demo"), dtype="float32")
    script = Script(group)
    for index, row in enumerate(together):
        wide = script.add(index, row.tokens[: row.prompt])
        for token, logits in zip(row.output, row.logits, strict=True):
            script.turn({index: script.remaining(index)})
            assert wide.logits[-1].max() - wide.logits[-1][token] <= TOLERANCE
            np.testing.assert_allclose(logits, wide.logits[-1], atol=TOLERANCE, rtol=0)
            wide.tokens[-1] = token  # float32 goes on with what bfloat16 chose
            script.appended = [(index, token)]


@pytest.mark.parametrize("name", ["biases", "qwen3", "mistral", "gemma2", "gemma3"])
def test_other_shapes(name: str, group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]) -> None:
    """Biases, norms over heads, windows, capped scores: logits of a prompt beside those of float32."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        group = group_of(2, 1)
        info = group.load(checkpoint(name), dtype=dtype)[0]
        script = Script(group)
        row = script.add(0, np.random.default_rng(1).integers(2, info.vocab_size, 60).tolist())
        script.turn({0: 50})
        script.turn({0: 10})
        found[dtype] = row.logits[0]
    wide = found["float32"]
    assert np.abs(found["bfloat16"] - wide).max() <= 0.1 * np.abs(wide).max()


def test_the_type_is_in_every_key(group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]) -> None:
    revisions = {group_of(1, 1).load(checkpoint("demo"), dtype=dtype)[0].revision for dtype in ("float32", "bfloat16")}
    assert len(revisions) == 2
