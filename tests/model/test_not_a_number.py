"""A row whose logits are no numbers ends; who runs beside it, and who gets its pages after it, does not notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import PAGE_SIZE, RankGroup
from safetensors.torch import load_file, save_file
from script import Script
from tiny_llamas import VOCAB, Oracle, write_llama

from headway.core.sampling import SamplingParams
from headway.worker.plan import NOT_A_NUMBER

POISON = 60


def prompt(seed: int, size: int) -> list[int]:
    drawn = np.random.default_rng(seed).integers(2, VOCAB, size)
    return np.where(drawn == POISON, POISON + 1, drawn).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 2)])
def test_neighbours_and_heirs(
    shape: tuple[int, int], group_of: Callable[[int, int], RankGroup], tmp_path: Path
) -> None:
    """One token's embedding is not a number."""
    clean = write_llama(tmp_path / "clean", num_key_value_heads=2)
    spoilt = write_llama(tmp_path / "spoilt", num_key_value_heads=2)
    tensors = load_file(spoilt / "model.safetensors")
    tensors["model.embed_tokens.weight"][POISON] = float("nan")
    save_file(tensors, spoilt / "model.safetensors", {"format": "pt"})
    group = group_of(*shape)
    group.load(spoilt, pages=12)
    script = Script(group, pages=12)
    bad = script.add(0, [*prompt(1, 20), POISON, *prompt(2, 4 * PAGE_SIZE - 21)])
    drawn = script.add(1, [POISON], SamplingParams(temperature=1.0, seed=1))
    good = script.add(2, prompt(3, 11))
    script.turn({0: 4 * PAGE_SIZE, 1: 1, 2: 11})
    assert (bad.output, drawn.output, good.output[0] >= 0) == ([NOT_A_NUMBER], [NOT_A_NUMBER], True)
    script.free(0)
    script.free(1)
    heirs = [script.add(0, prompt(4, 9)), script.add(1, prompt(5, 1))]
    script.finish(6)
    for row in (good, *heirs):
        assert row.output == Oracle(clean).greedy(row.tokens[: row.prompt], len(row.output))
