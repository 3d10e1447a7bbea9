"""A whole model through the kernels, step by step as the engine runs it, against transformers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "model" / "support"))

from captured import captured_runner, decode, plain_runner
from rank_group import RankGroup
from script import Script
from tiny_llamas import Oracle, write_llama
from tiny_models import LOGITS_TOLERANCE, MODELS, write_model
from tiny_quantized import write_quantized

from headway.core.specs import EngineSpec
from headway.kernels.launch import INTERPRETED

LAYERS = {"gemma3": 6}  # the sixth is the first without a window


# Weights of four bits; windows and capped scores; norms of each head, windows and two ropes; a part of each head that
# turns; experts.
@pytest.mark.parametrize("name", ["gptq", "gemma2", "gemma3", "phi3-long", "qwen3-moe"])
def test_greedy_tokens(name: str, tmp_path: Path) -> None:
    assert INTERPRETED
    if name in MODELS:
        model = oracle = write_model(tmp_path, name, num_hidden_layers=LAYERS.get(name, 2))
    else:
        model, oracle = write_quantized(tmp_path, name)
    group = RankGroup(1, 1)
    group.load(model, engine=EngineSpec(page_size=8, max_context_tokens=32))  # where LongRoPE is short for transformers
    script = Script(group)
    draw = np.random.default_rng(3)
    for index, size in enumerate((3, 20)):
        script.add(index, draw.integers(5, 128, size).tolist())
    script.finish(4, chunk=13)
    for row in script.rows.values():
        expected = Oracle(oracle).logits(row.tokens).numpy()[row.prompt - 1 : -1]
        assert row.output == expected.argmax(-1).tolist()
        np.testing.assert_allclose(np.stack(row.logits), expected, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE)


def test_padded_steps_by_the_kernels(tmp_path: Path) -> None:
    """Decode steps over fixed memory, whose plan is made where the lengths lie, and tokens that stay there."""
    model = write_llama(tmp_path, num_key_value_heads=2, num_hidden_layers=1)
    prompts, ways, turns = [[7, 8], [60]], [0, 2], [[1, 0], [0]]
    expected = decode(plain_runner(model), prompts, ways, turns, told=True)
    runner = captured_runner(model)
    graphs = runner.on_device.graphs
    graphs._seen, graphs._line = 100, [shape for shape in graphs._line if shape.rows == 2]
    assert decode(runner, prompts, ways, turns, told=False) == expected
    assert runner.replayer.captures == 1 and runner.replayer.replays == 2, "both steps by that of two rows"


@pytest.mark.parametrize("name", ["qwen3-moe"])
def test_the_same_bits_in_any_company(name: str, tmp_path: Path) -> None:
    """Alone, and beside another row in chunks: all of the kernels that a batch-invariant model goes through."""
    group = RankGroup(1, 1)
    group.load(
        write_model(tmp_path, name, num_hidden_layers=2),
        engine=EngineSpec(page_size=8, max_context_tokens=32, batch_invariant="on"),
    )
    script = Script(group)
    prompt = np.random.default_rng(3).integers(5, 128, 13).tolist()
    alone = script.add(0, prompt)
    script.finish(2)
    script.free(0)
    among = script.add(1, prompt)
    script.add(2, prompt[4:9])
    script.finish(2, chunk=7)
    assert among.output == alone.output
    assert np.array_equal(np.stack(among.logits), np.stack(alone.logits))
