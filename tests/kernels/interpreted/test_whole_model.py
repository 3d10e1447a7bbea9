"""A whole model through the kernels, step by step as the engine runs it, against transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "model" / "support"))

from captured import WAYS, captured_runner, decode, plain_runner
from rank_group import RankGroup
from script import Script
from tiny_adapters import KINDS, write_adapter
from tiny_llamas import Oracle, write_llama
from tiny_models import LOGITS_TOLERANCE, MODELS, write_model
from tiny_quantized import write_quantized

from headway.core.specs import EngineSpec
from headway.kernels.launch import INTERPRETED
from headway.worker.execution.graphs import Shape
from headway.worker.model import decoder
from headway.worker.model.split import Part
from headway.worker.plan import SAMPLED, RowAdded, RowWork, StepPlan

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


def test_a_split_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's part of the embedding comes from its kernel, with zeros for what the rank does not hold."""
    monkeypatch.setattr(decoder, "F", None)
    table = torch.randn(3, 40)
    rank = SimpleNamespace(
        embedding=table, split=SimpleNamespace(vocab=Part(4, 7)), config=SimpleNamespace(vocab_size=9),
        comm=SimpleNamespace(all_reduce=lambda x: x),
    )  # fmt: skip
    ids = torch.tensor([0, 4, 6, 7, 5])
    found = decoder.Decoder._embed(rank, ids)
    assert torch.equal(found, torch.cat((0 * table[:1], table[[0, 2]], 0 * table[:1], table[1:2])))
    assert torch.equal(ids, torch.tensor([0, 4, 6, 7, 5])), "which others read, too"


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


def test_padded_steps_with_adapters(tmp_path: Path) -> None:
    """Those that are captured are for adapters or without, and for them only once they were seen."""
    model = write_llama(tmp_path / "base", num_hidden_layers=1)
    paths = [write_adapter(tmp_path / str(seed), model, seed, **kind) for seed, kind in enumerate(KINDS[:2])]
    turns, tokens = ([2, 0, 1], [1], [0]), []
    for runner in (plain_runner(model), captured_runner(model)):
        for number, path in enumerate(paths, start=1):
            runner.adapters.read(number, path)
        graphs = runner.on_device.graphs if runner.on_device else None
        added = [
            RowAdded(row, np.array([7 + row] * 4, "<u4").tobytes(), 4, 0, [2 * row, 2 * row + 1], WAYS[0], adapter=slot)
            for row, slot in enumerate((5, -1, 2))
        ]
        work = [RowWork(row, 0, 4, True, []) for row in range(3)]
        results = [runner.step(StepPlan(0, [], added, [], work, adapters=[(5, 1), (2, 2)])).token_ids]
        if graphs is not None:
            graphs._seen, graphs._line = 100, [Shape(1, 4)]
        for number, turn in enumerate(turns):
            if graphs is not None:
                graphs._last_capture = -100
            work = [RowWork(row, 4 + sum(row in other for other in turns[:number]), 1, True, []) for row in turn]
            appended = [(row, SAMPLED) for row in turn]
            results.append(runner.step(StepPlan(1 + number, [], [], appended, work)).token_ids)
        tokens.append(results)
    assert tokens[0] == tokens[1]
    assert set(graphs.captured) == {Shape(4, 4, adapted=True), Shape(1, 4)} and runner.replayer.replays == 3
    graphs._line = [Shape(1, 4, adapted=True)]
    runner.step(StepPlan(9, [], [], [], []))
    assert graphs._buffers.tiles[0].tolist() == [-1] * 17, "captured with nobody's rows, whatever the last step had"


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
