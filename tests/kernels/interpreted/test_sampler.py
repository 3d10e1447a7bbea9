"""The sampler's tokens are the same by the kernels as without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headway.core.constraints import TokenRules
from headway.core.sampling import SamplingParams
from headway.worker.plan import NO_RULES, NONE_ALLOWED, NOT_A_NUMBER
from headway.worker.sampling import sampler as module
from headway.worker.sampling.sampler import Sampler

VOCAB = 700
ROWS = [
    SamplingParams(temperature=0.0),
    SamplingParams(seed=2**64 - 3),
    SamplingParams(temperature=0.4, top_k=5, seed=8),
    SamplingParams(temperature=2.0, top_p=0.6, min_p=0.01, seed=9, presence_penalty=1.5),
    SamplingParams(temperature=0.0, repetition_penalty=1.3),
    SamplingParams(temperature=0.7, top_k=50, top_p=0.9, seed=10),
]


def test_both_ways_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(VOCAB, torch.device("cpu"))
    for row, params in enumerate(ROWS):
        rules = TokenRules(allowed=tuple(range(row, VOCAB, 3))) if row % 2 else NO_RULES
        sampler.add(row, params, np.arange(20, dtype=np.int64), 10, row % 3, rules)
    torch.manual_seed(0)
    for step in range(3):
        logits = torch.randn(len(ROWS), VOCAB) * 3
        if step == 2:
            logits[1], logits[2] = torch.nan, -torch.inf
        tokens = []
        for kernels in (True, False):
            monkeypatch.setattr(module, "takes", lambda x, kernels=kernels: kernels)
            tokens.append(sampler.sample(logits.clone(), list(range(len(ROWS))), [20 + step] * len(ROWS)))
        assert tokens[0] == tokens[1]
    assert tokens[0][1:3] == [NOT_A_NUMBER, NONE_ALLOWED]


@pytest.mark.parametrize(
    "params", [SamplingParams(temperature=3.0, min_p=1.0), SamplingParams(temperature=3.0, top_k=7, min_p=1.0)]
)
def test_each_filter_holds_without_the_others_and_beside_them(params: SamplingParams) -> None:
    rows = list(range(12))
    sampler = Sampler(VOCAB, torch.device("cpu"))
    for row in rows:
        sampler.add(row, params, np.array([1]), 1, row)
    logits = torch.linspace(0, 1, VOCAB).repeat(len(rows), 1)
    assert sampler.sample(logits, rows, [1] * len(rows)) == [VOCAB - 1] * len(rows)
