"""The largest steps run, on the device's way and on CPU's, and leave nothing behind; pages get what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from rank_group import spec_for

from headway.core.specs import EngineSpec
from headway.worker.execution.device_steps import DeviceSteps
from headway.worker.execution.memory import suggested_pages
from headway.worker.execution.profile import largest_steps, run_largest_steps
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import alone


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("sequences", "budget", "context"), [(5, 64, 0), (3, 3, 16), (1, 400, 0)])
def test_they_run_and_leave_nothing(
    on_device: bool, sequences: int, budget: int, context: int, checkpoint: Callable[[str], Path]
) -> None:
    engine = EngineSpec(page_size=8, max_sequences=sequences, token_budget=budget, max_context_tokens=context)
    runner = Runner(spec_for(checkpoint("gqa-tied"), 1, 1, engine=engine), alone(), lambda share: None)
    if on_device:
        runner.on_device = DeviceSteps(runner)
    run_largest_steps(runner)
    assert not runner.rows.live.any() and not runner.sampler._params and not runner.sampler._counts
    assert not runner.caches


def test_they_are_the_largest() -> None:
    prompt, decode, gone = largest_steps(8, 100, 64, 16)
    assert prompt.total_tokens == 100 and len(prompt.added) == 8  # several prompts, where one may not be so long
    assert next(largest_steps(8, 100, 4096, 16)).total_tokens == 100
    assert len(decode.work) == 8 and max(item.computed + item.count for item in decode.work) == 63
    assert all(item.sample for item in prompt.work + decode.work) and gone.freed == list(range(8))


def test_pages_get_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * gib, 80 * gib))
    engine, cuda = EngineSpec(max_sequences=256, memory_fraction=0.5, graph_mib=1024), torch.device("cuda")
    assert suggested_pages(1 << 20, 1 << 20, engine, 1, cuda, 4 * gib) == 65536, "one whole context at least"
    assert suggested_pages(1 << 20, 1 << 17, engine, 1, cuda, 4 * gib) == (30 - 4 - 1) * 1024
    assert suggested_pages(1 << 20, 64, engine, 1, cuda, 4 * gib) == 2 * 256 * 4, "and no more than can be used"


def test_a_fraction_of_the_memory_holds_on_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    mib, cpu = 1 << 20, torch.device("cpu")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=40_000 * mib))

    def pages(memory_fraction: float, ranks: int = 1) -> int:
        return suggested_pages(mib, 1 << 17, EngineSpec(memory_fraction=memory_fraction, page_size=256), ranks, cpu)

    assert (pages(0.5), pages(0.5, ranks=4), pages(1.0)) == (20_000, 5_000, 40_000)
    assert pages(0.0) == 1024 and pages(0.0, ranks=5) == 800, "a tenth when not given, and a GiB a rank at most"
    assert pages(0.001) == (1 << 17) // 256, "one whole context at least"
