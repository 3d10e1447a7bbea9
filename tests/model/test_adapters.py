"""LoRA adapters: many in one batch, each as alone and as in peft, at every shape of group."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rank_group import RankGroup
from safetensors.torch import save_file
from script import Script
from tiny_adapters import ATTENTION, KINDS, PeftOracle, edit_adapter, write_adapter
from tiny_llamas import VOCAB
from torch import ones

from headway.core.specs import EngineSpec
from headway.proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN
from headway.worker.plan import FORGET

TOLERANCE = 5e-4
NEW_TOKENS = 6
DENSE = ("mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "llama-one-kv-head")
ENGINE = EngineSpec(page_size=8, max_adapters=8, max_lora_rank=16)
Family = Callable[[str], tuple[list[Path], PeftOracle]]


@pytest.fixture(scope="module")
def family(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Eight adapters of a checkpoint, and peft's view of them."""

    @cache
    def get(name: str) -> tuple[list[Path], PeftOracle]:
        base = checkpoint(name)
        directory = tmp_path_factory.mktemp(f"adapters-{name}")
        paths = [
            write_adapter(directory / str(index), base, seed=index, **kind)
            for index, kind in enumerate(KINDS if name != "demo" else KINDS[:1])
        ]
        return paths, PeftOracle(base, paths)

    return get


def prompt_of(row: int, vocab: int) -> list[int]:
    return np.random.default_rng(row).integers(2, vocab, 5 + 4 * row).tolist()


def mixed(group: RankGroup, paths: list[Path], rows: list[int], vocab: int = VOCAB, chunk: int = 1000) -> Script:
    """Row i runs with adapter i, and rows from 8 on with none; all of them in one batch."""
    script = Script(group, pages=200)
    for number, path in enumerate(paths, start=1):
        revisions = {revision for revision, error in group.read_adapter(number, path) if not error}
        assert len(revisions) == 1
        script.adapters.append((8 - number, number))
    for row in rows:
        script.add(row, prompt_of(row, vocab), adapter=7 - row if row < len(paths) else -1)
    script.finish(NEW_TOKENS, chunk)
    return script


@pytest.mark.parametrize("name", ["gqa-tied", "biases", "demo"])
def test_eight_in_one_batch_are_as_in_peft(
    name: str, group: RankGroup, checkpoint: Callable[[str], Path], family: Family
) -> None:
    paths, peft = family(name)
    vocab = group.load(checkpoint(name), pages=200, engine=ENGINE)[0].vocab_size
    script = mixed(group, paths, [*range(len(paths)), 8, 9], vocab)
    for index, row in script.rows.items():
        with peft.using(index if index < len(paths) else -1):
            assert row.output == peft.greedy(row.tokens[: row.prompt], NEW_TOKENS)
            expected = peft.logits(row.tokens).numpy()[row.prompt - 1 : -1]
        np.testing.assert_allclose(np.stack(row.logits), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", [*DENSE, "mixtral", "qwen3-moe-sparse"])
def test_every_architecture(
    name: str, group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Beside a base row; phi3's adapters act on matrices that are fused in the checkpoint, and experts have none."""
    targets = "all-linear" if name in DENSE else ATTENTION
    path = write_adapter(tmp_path, checkpoint(name), 5, r=4, target_modules=targets)
    peft = PeftOracle(checkpoint(name), [path])
    for shape in ((1, 1), (2, 1)):
        group = group_of(*shape)
        group.load(checkpoint(name), pages=200, engine=ENGINE)
        assert {error for _, error in group.read_adapter(1, path)} == {""}
        script = Script(group, pages=200)
        script.adapters.append((0, 1))
        for row in (0, 1, 2):
            script.add(row, prompt_of(row, VOCAB), adapter=0 if row < 2 else -1)
        script.finish(3)
        for index, row in script.rows.items():
            with peft.using(0 if index < 2 else -1):
                expected = peft.logits(row.tokens).numpy()[row.prompt - 1 : -1]
            np.testing.assert_allclose(np.stack(row.logits), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_routers_and_experts_have_no_adapters(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """In a model that has dense layers, too: what one layer has does not pass for another one's."""
    base, group = checkpoint("qwen3-moe-sparse"), group_of(1, 1)
    group.load(base, pages=200, engine=ENGINE)

    def error(module: str, target: str) -> str:
        name = f"base_model.model.model.layers.{module}.lora_"
        save_file({f"{name}A.weight": ones(2, 64), f"{name}B.weight": ones(96, 2)}, path / "adapter_model.safetensors")
        edit_adapter(path, target_modules=[target])
        return group.read_adapter(1, path)[0][1]

    path = write_adapter(tmp_path, base, 1, r=2, target_modules=["q_proj"])
    assert error("0.mlp.up_proj", "layers.0.mlp.up_proj") == ""
    assert "layers.1.mlp.up_proj.lora_A.weight is not supported" in error("1.mlp.up_proj", "up_proj")
    assert "layers.1.mlp.gate.lora_A.weight is not supported" in error("1.mlp.gate", "up_proj")
    assert "layers.1.mlp.experts.0.up_proj.lora_A.weight is not supported" in error(
        "1.mlp.experts.0.up_proj", "up_proj"
    )
    assert "target_modules has 'gate', which is not supported" in error("0.mlp.up_proj", "gate")


def test_embeddings_and_log_probabilities_of_prompts(
    group: RankGroup, checkpoint: Callable[[str], Path], family: Family
) -> None:
    """The last layer goes on with other tokens then, and in another order, than there are rows."""
    paths, peft = family("gqa-tied")
    group.load(checkpoint("gqa-tied"), pages=200, engine=ENGINE)
    script = Script(group, pages=200)
    prompt = prompt_of(4, VOCAB)
    for slot in range(3):
        group.read_adapter(slot + 1, paths[slot])
        script.adapters.append((slot, slot + 1))
    embedded = {
        adapter: [
            script.add(2 * adapter + 2, prompt, pooling=POOLING_LAST, adapter=adapter),
            script.add(2 * adapter + 3, prompt, pooling=POOLING_MEAN, adapter=adapter),
        ]
        for adapter in (-1, 0, 2)
    }
    scored = script.add(9, prompt, tops=(0, 0), adapter=1)
    while not scored.output:  # all have the same prompt
        script.turn({index: min(11, script.remaining(index)) for index in script.rows})
    for adapter, (last, mean) in embedded.items():
        with peft.using(adapter):
            states = peft.hidden(prompt).numpy()
        np.testing.assert_allclose(last.embedding, states[-1], atol=TOLERANCE, rtol=TOLERANCE)
        np.testing.assert_allclose(mean.embedding, states.mean(0), atol=TOLERANCE, rtol=TOLERANCE)
    with peft.using(1):
        logprobs = peft.logits(prompt).log_softmax(-1)
    expected = [float(logprobs[at, token]) for at, token in enumerate(prompt[1:])]
    got = [values[0] for _, values in scored.prompt_logprobs]
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_adapters_differ_from_each_other_and_from_the_base(family: Family) -> None:
    """Or the comparison would prove little."""
    _, peft = family("gqa-tied")
    outputs = []
    for index in range(-1, len(KINDS)):
        with peft.using(index):
            outputs.append(tuple(peft.greedy(prompt_of(3, VOCAB), NEW_TOKENS)))
    assert len(set(outputs)) > len(KINDS) / 2


@pytest.mark.parametrize("shape", [(1, 1), (2, 1)], ids=["tp1", "tp2"])
def test_each_has_the_bits_that_it_has_alone(
    shape: tuple[int, int],
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    family: Family,
) -> None:
    """Base rows too: the bits beside adapters are those of a group that has none."""
    group, (paths, _) = group_of(*shape), family("gqa-tied")

    def run(rows: list[int], with_adapters: bool = True) -> Script:
        group.load(checkpoint("gqa-tied"), pages=200, engine=ENGINE)
        return mixed(group, paths if with_adapters else [], rows, chunk=9)

    together = run([*range(8), 8, 9])
    for row in range(8):
        alone = run([row]).rows[row]
        assert together.rows[row].output == alone.output
        np.testing.assert_array_equal(together.rows[row].logits, alone.logits)
    without = run([8, 9], with_adapters=False)
    for row in (8, 9):
        np.testing.assert_array_equal(together.rows[row].logits, without.rows[row].logits)


def test_slots_are_filled_again_and_forgotten_adapters_go(
    group: RankGroup, checkpoint: Callable[[str], Path], family: Family
) -> None:
    """One slot, eight adapters after one another, among them ones that touch fewer modules than the last."""
    paths, peft = family("gqa-tied")
    group.load(checkpoint("gqa-tied"), pages=200, engine=EngineSpec(page_size=8, max_adapters=1, max_lora_rank=16))
    script = Script(group, pages=200)
    for index, path in enumerate(paths):
        group.read_adapter(index + 1, path)
        script.adapters.append((0, index + 1))
        script.add(index, prompt_of(index, VOCAB), adapter=0)
        script.finish(2)
        row = script.rows[index]
        with peft.using(index):
            assert row.output == peft.greedy(row.tokens[: row.prompt], 2)
        script.free(index)
        script.adapters.append((FORGET, index + 1))
    script.add(0, prompt_of(0, VOCAB))
    script.finish(1)
    if group.alone is not None:
        assert group.alone.runner is not None
        adapters = group.alone.runner.adapters
        assert not adapters._host
        adapters.apply([(FORGET, 99)])  # its reading is told to the ranks beside the plans, and may come after them
        adapters.read(99, paths[0])
        assert not adapters._host and not adapters._forgotten
