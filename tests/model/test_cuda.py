"""The same code on one CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from captured import ENGINE, PAGES_A_ROW, ROWS, WAYS, capture_all, decode
from rank_group import PAGE_SIZE, Rank, RankGroup, spec_for
from script import Script
from tiny_adapters import KINDS, PeftOracle, write_adapter
from tiny_llamas import Oracle
from tiny_models import MODELS
from tiny_quantized import CASES, Written, quantize_inputs, write_block_experts

from headway.core.specs import EngineSpec
from headway.worker.execution.profile import step_bytes
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import alone
from headway.worker.plan import SAMPLED, RowAdded, RowWork, StepPlan

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


def script_on_cuda(model: Path, **changes: Any) -> Script:
    """Prompts in chunks, then all rows together."""
    group = RankGroup(1, 1)
    group.alone = Rank(alone("cuda"))
    vocab = group.load(model, device="cuda", dtype="float32", **changes)[0].vocab_size
    script = Script(group)
    draw = np.random.default_rng(5)
    for index, size in enumerate((1, 9, 30)):
        script.add(index, draw.integers(2, vocab, size).tolist())
    script.finish(5, chunk=13)
    return script


def errors(script: Script, oracle: Oracle) -> tuple[list[float], float]:
    """The largest error of each place's logits, and the spread of logits."""
    apart, spread = [], 0.0
    for row in script.rows.values():
        expected = oracle.logits(row.tokens).numpy()[row.prompt - 1 : -1]
        apart += np.abs(np.stack(row.logits) - expected).max(-1).tolist()
        spread = max(spread, float(expected.std()))
    return apart, spread


@pytest.mark.parametrize("name", CASES)
def test_quantized_checkpoints(name: str, written: Callable[[str], Written]) -> None:
    """By the kernels, whose products take operands of half types: float32 ones are not rounded."""
    if CASES[name].activations == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no fp8 on this device")
    oracle = Oracle(written(name).dense)
    if CASES[name].activations:
        quantize_inputs(oracle.model, CASES[name])
    apart, spread = errors(script_on_cuda(written(name).quantized), oracle)
    assert np.median(apart) < 0.02 * spread and max(apart) < 0.8 * spread


def test_experts_in_blocks(tmp_path: Path) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no fp8 on this device")
    both = write_block_experts(tmp_path, hidden_size=192, intermediate_size=256, moe_intermediate_size=200, head_dim=64)
    apart, spread = errors(script_on_cuda(both.quantized), Oracle(both.dense))
    assert 0 < max(apart) < spread


@pytest.mark.parametrize(("kv_dtype", "bound"), [("bf16", 0.1), ("int8", 0.2), ("fp8", 0.6)])
def test_narrow_keys_and_values(
    kv_dtype: str, bound: float, checkpoint: Callable[[str], Path], oracle: Callable[[str], Oracle]
) -> None:
    if kv_dtype == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no fp8 on this device")
    script = script_on_cuda(checkpoint("demo"), engine=EngineSpec(page_size=8, kv_dtype=kv_dtype))
    apart, spread = errors(script, oracle("demo"))
    assert 0 < max(apart) < bound * spread


def test_adapters_in_one_batch(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    base = checkpoint("gqa-tied")
    paths = [write_adapter(tmp_path / str(index), base, index, **KINDS[index]) for index in range(3)]
    peft = PeftOracle(base, paths)
    group = RankGroup(1, 1)
    group.alone = Rank(alone("cuda"))
    group.load(base, 200, device="cuda", dtype="float32", engine=EngineSpec(page_size=8, max_lora_rank=16))
    script = Script(group, pages=200)
    for number, path in enumerate(paths):
        assert group.read_adapter(number + 1, path)[0][1] == ""
        script.adapters.append((number, number + 1))
    for row in range(4):
        script.add(
            row, np.random.default_rng(row).integers(2, 128, 5 + 7 * row).tolist(), adapter=row if row < 3 else -1
        )
    script.finish(4)
    for index, row in script.rows.items():
        with peft.using(index if index < 3 else -1):
            expected = peft.logits(row.tokens).numpy()[row.prompt - 1 : -1]
        np.testing.assert_allclose(np.stack(row.logits), expected, atol=5e-4, rtol=5e-4)


@pytest.mark.parametrize("name", ["gqa-tied", "gemma2", "qwen3-moe"])
def test_captured_steps_give_the_tokens_of_plain_ones(name: str, checkpoint: Callable[[str], Path]) -> None:
    """Replayed graphs, a step ahead of the host, beside operations launched one by one."""
    prompts, ways = [[7] * 5, [60, 8], [99] * 30, [11, 12, 13], [44] * 9], [0, 1, 2, 0, 1]
    turns = [[0, 1, 2], [4, 3, 2, 1, 0], [2], [0, 1, 2, 3, 4], [1, 3]] * 4
    plain, captured = (cuda_runner(checkpoint(name), graph_mib=mib) for mib in (0, 512))
    expected = decode(plain, prompts, ways, turns, told=True)
    decode(captured, prompts, ways, turns[:2], told=True)
    capture_all(captured)
    assert captured.on_device is not None and captured.on_device.graphs is not None
    assert len(captured.on_device.graphs.captured) == 5, "1, 2, 4, 8 and 12 rows"
    for told in (True, False):
        assert decode(captured, prompts, ways, turns, told=told) == expected


def test_results_come_later(checkpoint: Callable[[str], Path]) -> None:
    """A second step is launched on the first one's tokens before anybody has seen them."""
    runner = cuda_runner(checkpoint("gqa-tied"), graph_mib=0)
    first = StepPlan(
        0, [], [RowAdded(0, np.array([5, 6, 7], "<u4").tobytes(), 3, 0, [0], WAYS[0], logprobs=3)], [],
        [RowWork(0, 0, 3, True, [])],
    )  # fmt: skip
    second = StepPlan(1, [], [], [(0, SAMPLED)], [RowWork(0, 3, 1, True, [])])
    begun = [runner.launch(plan) for plan in (first, second)]
    results = [launched.collect() for launched in begun]
    runner.step(StepPlan(2, [0], [], [], []))
    told = [runner.step(first)]
    told.append(runner.step(msgspec.structs.replace(second, appended=[(0, told[0].token_ids[0])])))
    assert [result.token_ids for result in results] == [result.token_ids for result in told]
    assert [result.logprobs[0][1].ids for result in results] == [result.logprobs[0][1].ids for result in told]
    assert all(result.model_seconds > 0 for result in results)


def test_room_is_what_the_largest_step_leaves(checkpoint: Callable[[str], Path]) -> None:
    runner = cuda_runner(checkpoint("demo"), graph_mib=64, allocate=False)
    taken = step_bytes(runner)
    assert 0 < taken < 8 << 30 and not runner.caches
    free, _ = torch.cuda.mem_get_info()
    assert runner.suggested_pages() * runner.info.kv_bytes_per_page < free


def cuda_runner(path: Path, *, graph_mib: int, allocate: bool = True) -> Runner:
    engine = msgspec.structs.replace(ENGINE, graph_mib=graph_mib)
    spec = spec_for(path, 1, 1, engine=engine, device="cuda", dtype="float32")
    runner = Runner(spec, alone("cuda"), lambda share: None)
    if allocate:
        runner.allocate(ROWS * PAGES_A_ROW)
    return runner


@pytest.mark.parametrize(
    ("name", "dtype"), [("gqa-tied", "bfloat16"), ("gemma2", "bfloat16"), ("qwen3-moe", "float32")]
)
def test_the_same_bits_in_any_company(name: str, dtype: str, checkpoint: Callable[[str], Path]) -> None:
    """With `batch_invariant`: alone, among many in chunks, and after preemption."""
    group = RankGroup(1, 1)
    group.alone = Rank(alone("cuda"))
    engine = EngineSpec(page_size=PAGE_SIZE, batch_invariant="on", max_sequences=80)
    group.load(checkpoint(name), pages=600, device="cuda", dtype=dtype, engine=engine)
    script = Script(group, pages=600)
    draw = np.random.default_rng(3)
    prompt = draw.integers(5, 128, 61).tolist()
    single = script.add(0, prompt)
    script.finish(6)
    script.free(0)
    for row in range(70):
        script.add(2 + row, draw.integers(5, 128, 3 + row % 40).tolist())
    among = script.add(1, prompt)
    script.finish(3, chunk=7)
    script.free(1)
    again = script.add(1, among.tokens, prompt=len(prompt))
    script.finish(6, chunk=30)
    assert again.output == single.output
    assert np.array_equal(np.stack([*among.logits, *again.logits]), np.stack(single.logits))
