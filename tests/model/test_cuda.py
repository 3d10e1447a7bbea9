"""The same code on one CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_group import Rank, RankGroup
from script import Script
from tiny_llamas import Oracle
from tiny_models import MODELS

from headway.worker.parallel.communicator import alone

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("name", ["gqa-tied", "biases", "demo", *(name for name in MODELS if name != "phi3-long")])
def test_greedy_tokens_in_float32(
    name: str, checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]
) -> None:
    group = RankGroup(1, 1)
    group.alone = Rank(alone("cuda"))
    group.load(checkpoint(name), device="cuda", dtype="float32")
    script = Script(group)
    draw = np.random.default_rng(3)
    for index, size in enumerate((3, 20, 33)):
        script.add(index, draw.integers(5, 128, size).tolist())
    script.finish(8, chunk=13)
    for row in script.rows.values():
        assert row.output == oracle(name).greedy(row.tokens[: row.prompt], 8)


def test_half_types_stay_close(checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]) -> None:
    group = RankGroup(1, 1)
    group.alone = Rank(alone("cuda"))
    info = group.load(checkpoint("demo"), device="cuda")[0]
    assert info.dtype == "bfloat16"
    script = Script(group)
    row = script.add(0, list(range(5, 60)))
    script.finish(1)
    expected = oracle("demo").logits(row.tokens[:-1])[-1].numpy()
    assert np.abs(row.logits[0] - expected).max() < 0.25
