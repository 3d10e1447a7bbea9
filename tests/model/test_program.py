"""A step as one call into C against the operations one by one: the same bits, whatever is in the batch."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from program_switch import Program, both_ways
from rank_group import RankGroup, spec_for
from script import Script
from tiny_llamas import VOCAB

from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec
from headway.kernels.native import AVAILABLE
from headway.kernels.paged_attention import AttentionBatch
from headway.proto.headway.v1.pooling_pb2 import POOLING_MEAN
from headway.worker.execution.batch import build_inputs
from headway.worker.execution.program import why_not
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import Communicator, alone
from headway.worker.parallel.errors import RankLost
from headway.worker.parallel.native_group import NativeGroup
from headway.worker.parallel.shared_memory import CAPACITY, LINE
from headway.worker.parallel.topology import Topology
from headway.worker.plan import RowAdded, RowWork, StepPlan, StepResult

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="not built, or turned off")

MODELS = ("gqa-tied", "mha-untied", "biases", "wide-heads", "llama-yarn", "mistral", "qwen2", "qwen2-windows", "qwen3")
PAGES = 64


class Both:
    """A runner with a program and one without, which get the same plans and have to give the same."""

    def __init__(self, model: Path, dtype: str) -> None:
        spec = spec_for(model, 1, 1, dtype=dtype)
        self.runners = [Runner(spec, alone(), lambda share: None) for _ in range(2)]
        self.logits: dict[int, torch.Tensor] = {}
        for index, runner in enumerate(self.runners):
            assert runner.sampler is not None
            runner.sampler.sample = self.recorder(index, runner.sampler.sample)  # type: ignore[method-assign]

    def recorder(self, index: int, sample: Callable[..., list[int]]) -> Callable[..., list[int]]:
        def recording(logits: torch.Tensor, *rest: Any) -> list[int]:
            self.logits[index] = logits.clone()
            return sample(logits, *rest)

        return recording

    def begin(self) -> Script:
        for runner in self.runners:
            runner.allocate(PAGES)
        assert self.runners[0].program is not None
        self.runners[1].program = None
        return Script(self, PAGES)  # type: ignore[arg-type]

    def step(self, plan: StepPlan) -> tuple[StepResult, np.ndarray | None]:
        self.logits = {}
        one, other = (runner.step(plan) for runner in self.runners)
        assert one is not None and other is not None
        assert (one.token_ids, one.logprobs, one.prompt_logprobs, one.pooled) == (
            other.token_ids, other.logprobs, other.prompt_logprobs, other.pooled,
        )  # fmt: skip
        if self.logits:
            assert torch.equal(self.logits[0], self.logits[1])
        for layer, expected in zip(self.runners[0].caches, self.runners[1].caches, strict=True):
            assert all(map(torch.equal, layer.tensors(), expected.tensors()))
        return one, None


@pytest.fixture(scope="module")
def both(checkpoint: Callable[[str], Path]) -> Callable[[str, str], Both]:
    return cache(lambda name, dtype: Both(checkpoint(name), dtype))


def test_these_models_have_a_program_and_others_say_why_not(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    def reason(name: str, **engine: Any) -> str:
        spec = spec_for(checkpoint(name), 1, 1, engine=EngineSpec(**engine))
        runner = Runner(spec, alone(), lambda share: None)
        runner.allocate(4)
        return why_not(runner.model, runner.caches)

    assert {name: reason(name) for name in MODELS} == dict.fromkeys(MODELS, "")
    assert "scales embeddings" in reason("gemma2")
    assert "KV cache" in reason("qwen3", kv_dtype="int8")
    with caplog.at_level(logging.INFO):
        Runner(spec_for(checkpoint("mixtral"), 1, 1), alone(), lambda share: None).allocate(4)
        Runner(spec_for(checkpoint("qwen3"), 1, 1), alone(), lambda share: None).allocate(4)
    assert "operation by operation: an MLP that is no SwiGLU" in caplog.text and "one call into C" in caplog.text


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_steps(both: Callable[[str, str], Both], data: st.DataObject) -> None:
    """Prompts in chunks beside decodes, rows that come and go, lengths about the ends of pages; log probabilities and
    embeddings, which want other tokens than the last."""
    draw = data.draw
    script = both(draw(st.sampled_from(MODELS)), draw(st.sampled_from(["float32", "bfloat16"]))).begin()
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    for turn in range(draw(st.integers(1, 8))):
        for row in range(draw(st.integers(0, 2))):
            if (index := turn * 2 + row) < 6:
                sampling = SamplingParams(temperature=draw(st.sampled_from([0.0, 1.0])), seed=7)
                kind = draw(st.sampled_from(["", "", "logprobs", "pooling"]))
                tokens = random.integers(2, VOCAB, draw(st.integers(1, 40))).tolist()
                tops, pooling = ((2, 2) if kind == "logprobs" else (-1, -1)), POOLING_MEAN if kind == "pooling" else 0
                script.add(index, tokens, sampling, tops=tops, pooling=pooling)
        left = {index: script.remaining(index) for index in script.rows if script.remaining(index)}
        counts = {index: draw(st.integers(1, most)) for index, most in left.items() if draw(st.booleans())}
        if counts:
            script.turn(counts)
        for index in [index for index, row in script.rows.items() if not script.remaining(index) or row.computed > 60]:
            script.free(index)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2)])
def test_ranks(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path], tp: int, pp: int, dtype: str
) -> None:
    """The demo model over slices and stages: both ways give the same tokens and logits."""
    found = []
    for used in both_ways(group_of(tp, pp)):
        group_of(tp, pp).load(checkpoint("demo"), PAGES, dtype=dtype)
        script = Script(group_of(tp, pp), PAGES)
        for row, size in enumerate((1, 17, 40)):
            script.add(row, np.random.default_rng(row).integers(5, 4096, size).tolist())
        script.finish(6, 13)
        found.append(([row.output for row in script.rows.values()], [row.logits for row in script.rows.values()]))
        assert group_of(tp, pp).run(Program()) == [used] * (tp * pp)
    (tokens, logits), (others, expected) = found
    assert tokens == others
    for one, other in zip(chain(*logits), chain(*expected), strict=True):
        assert np.array_equal(one, other)


def test_what_is_none_is_refused_before_anything_is_written(both: Callable[[str, str], Both]) -> None:
    script = both("gqa-tied", "float32").begin()
    script.add(0, list(range(2, 12)))
    script.turn({0: 10})
    script.turn({0: 1})
    runner = both("gqa-tied", "float32").runners[0]
    program = runner.program
    assert program is not None
    inputs, _ = build_inputs(runner.rows, [RowWork(0, 10, 1, True, [])], [], (None,), runner.device, runner.dtype)
    rows = inputs.attention[None].native
    assert rows is not None
    before = [cache.keys.clone() for cache in runner.caches]

    def run(**changes: Any) -> None:
        program.run(replace(inputs, **changes), 1)

    run()
    table, described = rows.tables + PAGES, rows.rows + torch.tensor([0, 0, 1000])
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("token 0: not in the vocabulary", {"token_ids": torch.tensor([VOCAB])}),
        ("token 0: not in the vocabulary", {"token_ids": torch.tensor([-1])}),
        ("token 0: a position or slot", {"positions": torch.tensor([1 << 40])}),
        ("token 0: a position or slot", {"slots": torch.tensor([PAGES * 8])}),
        ("wanted token 0: not in the step", {"wanted": torch.tensor([1])}),
        ("row 0: a page that is not", {"attention": {None: AttentionBatch(native=rows._replace(tables=table))}}),
        (
            "row 0: a page that is not",
            {"attention": {None: AttentionBatch(native=rows._replace(rows=described.int()))}},
        ),
    ]
    for message, changes in wrong:
        with pytest.raises(IndexError, match=message):
            run(**changes)
    work = runner.rows.work
    for changes in ({"row": np.array([99])}, {"computed": np.array([1 << 40])}, {"count": np.array([-1])}):
        runner.rows.work = replace(work, **changes)
        with pytest.raises(IndexError, match="item 0: a row or tokens that are none"):
            program.run_rows(runner.rows)
    assert all(map(torch.equal, before, [cache.keys for cache in runner.caches]))


def test_a_lost_rank_ends_the_step(checkpoint: Callable[[str], Path]) -> None:
    memory = mmap.mmap(-1, 2 * LINE + 4 * CAPACITY)
    group = NativeGroup(memory, 0, 2, CAPACITY, 0.05, spin=False)
    comm = Communicator(Topology(0, tp=2), group, torch.device("cpu"), None)
    runner = Runner(spec_for(checkpoint("gqa-tied"), 2, 1), comm, lambda share: None)
    runner.allocate(8)
    assert runner.program is not None
    row = RowAdded(0, np.arange(2, 9, dtype="<u4").tobytes(), 7, 0, [1], SamplingParams())
    with pytest.raises(RankLost, match="rank 1 did not reach"):
        runner.step(StepPlan(0, [], [row], [], [RowWork(0, 0, 7, True, [])]))
