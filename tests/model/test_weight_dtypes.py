"""Weights kept in 8 bits: the model whose weights these numbers are, alone and split, and what it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from program_switch import both_ways
from rank_group import RankGroup, spec_for
from script import generated
from tiny_llamas import Oracle

from headway.core.errors import ConfigError
from headway.core.specs import EngineSpec
from headway.kernels.linear_packed import whole_numbers
from headway.kernels.native import AVAILABLE
from headway.worker.execution.model_info import read_model_info

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="not built, or turned off")

INT8 = EngineSpec(page_size=8, weight_dtype="int8")


class RoundedOracle(Oracle):
    """transformers with the weights that the numbers of 8 bits stand for."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        for module in list(self.model.modules()):
            for name, weight in list(module.named_parameters(recurse=False)):
                if (
                    isinstance(module, torch.nn.Linear) and name == "weight"
                ) or weight.dim() == 3:  # all experts in one
                    setattr(module, name, torch.nn.Parameter(rounded(weight.detach())))


def rounded(weight: torch.Tensor) -> torch.Tensor:
    numbers, scales = whole_numbers(weight.flatten(0, -2))
    return (numbers * scales.unsqueeze(1)).view(weight.shape)


# Experts, whose router keeps its type, too.
@pytest.mark.parametrize("name", ["gqa-tied", "biases", "qwen3", "gemma3", "mixtral", "qwen3-moe", "demo"])
def test_the_model_is_that_of_the_rounded_weights(
    name: str, group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    exact, near = Oracle(checkpoint(name)), RoundedOracle(checkpoint(name))
    script = generated(group_of(1, 1), checkpoint(name), INT8)
    for row in script.rows.values():
        found = np.stack(row.logits)
        expected = near.logits(row.tokens).numpy()[row.prompt - 1 : -1]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        stored = exact.logits(row.tokens).numpy()[row.prompt - 1 : -1]
        assert 0 < np.abs(found - stored).mean() / stored.std() < 0.2


@pytest.mark.parametrize("shape", [(2, 1), (1, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["biases", "qwen3"])
def test_as_one_call_and_operation_by_operation(
    name: str,
    dtype: str,
    shape: tuple[int, int],
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
) -> None:
    found = []
    for _ in both_ways(group_of(*shape)):
        script = generated(group_of(*shape), checkpoint(name), INT8, dtype)
        found.append([(row.output, np.stack(row.logits).tobytes()) for row in script.rows.values()])
    assert found[0] == found[1]


def test_its_pages_are_not_those_of_the_exact_model(checkpoint: Callable[[str], Path]) -> None:
    model = checkpoint("gqa-tied")
    revisions = [
        read_model_info(model, spec_for(model, 1, 1, engine=engine)).revision
        for engine in (INT8, EngineSpec(page_size=8))
    ]
    assert revisions[0] != revisions[1]


def test_refusals(checkpoint: Callable[[str], Path]) -> None:
    model = checkpoint("gqa-tied")
    other = spec_for(model, 1, 1, engine=EngineSpec(weight_dtype="int4"))
    with pytest.raises(ConfigError, match="weight_dtype must be one of auto, int8, got 'int4'"):
        other.check()
    with pytest.raises(ConfigError, match="weight_dtype = int8 is for device cpu"):
        spec_for(model, 1, 1, device="cuda", engine=INT8).check()
    with pytest.raises(ConfigError, match=r"needs the operations in C, which do not run here with torch\.float16"):
        read_model_info(model, spec_for(model, 1, 1, engine=INT8, dtype="float16"))
