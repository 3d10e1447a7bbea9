"""Launched and captured steps on a device wait for nothing and mix no places, as far as can be known without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_cuda import NobodyWaits, Waited, pretended_cuda
from rank_group import spec_for
from tiny_quantized import Written

from headway.core.constraints import TokenRules
from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec
from headway.worker.execution.graphs import Shape
from headway.worker.execution.runner import Runner
from headway.worker.model.rope import Rotary
from headway.worker.parallel.communicator import alone
from headway.worker.plan import SAMPLED, RowAdded, RowWork, StepPlan

ENGINE = EngineSpec(page_size=16, max_sequences=8, token_budget=64)
ALL = SamplingParams(seed=2**64 - 1, temperature=0.8, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
RULES = TokenRules(logit_bias=((5, 2.0),), bad_words=((7,),), min_new_tokens=2, end_token_ids=(3,))


def runner_for(path: Path, engine: EngineSpec = ENGINE) -> Runner:
    runner = Runner(spec_for(path, 1, 1, engine=engine, device="cuda"), alone("cuda:0"), lambda share: None)
    runner.allocate(40)
    return runner


def plans(vocab: int) -> list[StepPlan]:
    """A prompt with everything that can be asked beside a plain one, chunks beside a decoding row, and decoding."""

    def added(row: int, size: int, way: SamplingParams, **more: object) -> RowAdded:
        return RowAdded(row, np.full(size, 9, "<u4").tobytes(), size, 0, [2 * row, 2 * row + 1], way, row, **more)

    mask = b"\xff" * (-(-vocab // 32) * 4)
    return [
        StepPlan(0, [], [added(0, 5, ALL, logprobs=3, rules=RULES), added(1, 20, SamplingParams(temperature=0.0))], [],
                 [RowWork(0, 0, 5, True, []), RowWork(1, 0, 7, False, [])], masks=[(0, mask)]),
        StepPlan(1, [], [], [(0, SAMPLED)], [RowWork(0, 5, 1, True, []), RowWork(1, 7, 13, True, [])]),
        StepPlan(2, [], [], [(0, SAMPLED), (1, SAMPLED)], [RowWork(1, 20, 1, True, []), RowWork(0, 6, 1, True, [])]),
        StepPlan(3, [1], [], [(0, SAMPLED)], [RowWork(0, 7, 1, True, [])], masks=[(0, mask)]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("gqa-tied", set()),
        ("gemma2", {"gated_kernel"}),
        ("gemma3", set()),
        ("qwen3-moe", {"grouped_kernel"}),
        ("int8", {"w8a8_kernel", "quantize_kernel"}),
        ("fp8", {"w8a8_kernel"}),
        ("fp8-blocks", {"blocks_kernel", "quantize_groups_kernel"}),
    ],
)
@pytest.mark.parametrize("invariant", ["off", "on"])
def test_neither_side_waits(
    name: str, kernels: set[str], invariant: str, checkpoint: Callable[[str], Path],
    written: Callable[[str], Written], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    quantized = name in ("int8", "fp8", "fp8-blocks")
    if quantized and invariant == "on":
        pytest.skip("refused")
    path = written(name).quantized if quantized else checkpoint(name)
    engine = EngineSpec(page_size=16, max_sequences=8, token_budget=64, batch_invariant=invariant, kv_dtype="fp8")
    monkeypatch.setattr(Rotary, "rows", None)  # kernels find them in the tables
    with pretended_cuda(monkeypatch) as launched:
        runner = runner_for(path, engine)
        with NobodyWaits():
            for plan in plans(runner.config.vocab_size):
                runner.launch(plan)
            assert runner.on_device is not None and runner.on_device.graphs is not None
            graphs = runner.on_device.graphs
            with torch.inference_mode():
                for shape in (Shape(8, 4), Shape(1, 4), Shape(4, 4, adapted=True)):
                    hidden = graphs._step(shape)
                    assert hidden.shape == (shape.rows, runner.config.hidden_size) and hidden.device.type == "cuda"
    attention = {"prefill_kernel"} if invariant == "on" else {"prefill_kernel", "decode_kernel", "merge_kernel"}
    sampling = {"floor_kernel", "draw_kernel", "choose_kernel", "penalize_kernel"}
    assert {
        "rms_norm_kernel",
        "rope_kv_write_kernel",
        "shrink_kernel",
        "expand_kernel",
        *attention,
        *sampling,
        *kernels,
    } <= set(launched)


def test_who_would_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_cuda(monkeypatch), NobodyWaits():
        x, at = torch.zeros(4, device="cuda:0"), torch.zeros(4, dtype=torch.bool, device="cuda:0")
        for wait in (
            lambda: x.sum().item(), lambda: x.cpu(), lambda: torch.arange(4).to("cuda:0"), lambda: x[at],
            lambda: x.copy_(torch.arange(4)),
        ):  # fmt: skip
            with pytest.raises(Waited):
                wait()
