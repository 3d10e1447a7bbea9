"""Quantized checkpoints are served as transformers serves the weights that they stand for, alone and split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import RankGroup
from script import Script
from tiny_llamas import VOCAB, Oracle
from tiny_models import write_model
from tiny_quantized import CASES, TOLERANCE, Written, quantize_inputs, write_block_experts, write_quantized

from headway.kernels import fused_moe
from headway.worker.model import quantized

# Shares of the logits' spread: each rank rounds its own part of a row by a scale of its own.
SPLIT_ROUNDED = {"int8": 0.3, "fp8": 0.8}
NEW_TOKENS = 5


def generated(group: RankGroup, model: Path) -> Script:
    group.load(model)
    script = Script(group)
    draw = np.random.default_rng(5)
    for index, size in enumerate((1, 9, 30)):
        script.add(index, draw.integers(2, VOCAB, size).tolist())
    script.finish(NEW_TOKENS, chunk=13)
    return script


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_weights_that_are_meant(
    name: str, group_of: Callable[[int, int], RankGroup], written: Callable[[str], Written]
) -> None:
    case, oracle = CASES[name], Oracle(written(name).dense)
    if case.activations:
        quantize_inputs(oracle.model, case)
    for shape in ((1, 1), (2, 1)):
        apart, spread = [], 0.0
        for row in generated(group_of(*shape), written(name).quantized).rows.values():
            expected = oracle.logits(row.tokens).numpy()[row.prompt - 1 : -1]
            apart += np.abs(np.stack(row.logits) - expected).max(-1).tolist()
            spread = max(spread, float(expected.std()))
            if not case.activations:
                assert row.output == expected.argmax(-1).tolist()
        if not case.activations:
            assert max(apart) < TOLERANCE
        elif shape == (1, 1) or case.input_scale:
            # A difference in the last bit is now and then rounded to one of a whole step.
            assert np.median(apart) < TOLERANCE and max(apart) < SPLIT_ROUNDED[case.activations] * spread
        else:
            assert max(apart) < SPLIT_ROUNDED[case.activations] * spread


# Biases; matrices that hold queries, keys and values, or gate and other half.
@pytest.mark.parametrize(("architecture", "name"), [("qwen2", "gptq"), ("phi3", "awq")])
def test_other_architectures(
    architecture: str, name: str, group_of: Callable[[int, int], RankGroup], tmp_path: Path
) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
    both = write_quantized(tmp_path, name, write_model(tmp_path / "base", architecture, **sizes))
    oracle = Oracle(both.dense)
    for shape in ((1, 1), (2, 1)):
        for row in generated(group_of(*shape), both.quantized).rows.values():
            expected = oracle.logits(row.tokens).numpy()[row.prompt - 1 : -1]
            np.testing.assert_allclose(np.stack(row.logits), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_experts_in_blocks(
    group_of: Callable[[int, int], RankGroup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sizes that are no multiples of 128, and where a split parts them between those; exact but for the rounding of
    inputs, which transformers' experts do not know."""
    sizes = {"hidden_size": 192, "intermediate_size": 256, "moe_intermediate_size": 256, "head_dim": 64}
    both = write_block_experts(tmp_path, num_hidden_layers=2, **sizes)
    oracle = Oracle(both.dense)

    def apart(script: Script) -> float:
        found = 0.0
        for row in script.rows.values():
            expected = oracle.logits(row.tokens).numpy()[row.prompt - 1 : -1]
            found = max(found, float((np.abs(np.stack(row.logits) - expected) / expected.std()).max()))
        return found

    for shape in ((1, 1), (2, 1)):
        assert 0.01 < apart(generated(group_of(*shape), both.quantized)) < 1.0
    for module in (fused_moe, quantized):
        monkeypatch.setattr(module, "rounded", lambda x: x.float())
    assert apart(generated(group_of(1, 1), both.quantized)) < TOLERANCE


def test_a_row_has_the_same_bits_alone_and_in_company(
    group_of: Callable[[int, int], RankGroup], written: Callable[[str], Written]
) -> None:
    group = group_of(1, 1)
    for name in ("awq", "int8", "fp8", "fp8-blocks"):
        together = generated(group, written(name).quantized)
        for index, row in together.rows.items():
            group.load(written(name).quantized)
            alone_script = Script(group)
            alone_script.add(index, row.tokens[: row.prompt])
            alone_script.finish(NEW_TOKENS, chunk=13)
            assert np.array_equal(np.stack(alone_script.rows[index].logits), np.stack(row.logits))
