"""The engine's tables: workloads beside what their steps would take at best, and where a decode step's time goes."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from typing import Any

import torch

from ...core.specs import EngineSpec
from .ceilings import Ceilings
from .engine import Bench, Done, Tally
from .profile import KINDS, profile
from .workloads import CONTEXT, LLAMA_8B, QWEN3_600M, TINY, Prompts

BATCHES = (1, 8, 64, 256)
CONTEXTS = (1024, 8192)
DECODED = 128  # tokens of each row in a sweep
PROFILED = ((64, 1024), (256, 1024))
LATE = "left out: the time for all of it is over"


def tables(device: torch.device, ceilings: Ceilings, *, tiny: bool, until: float = math.inf) -> str:
    """Markdown. A workload that fails says so in its line, and the others go on. From `until` on, by the monotonic
    clock, none is begun."""
    served = [
        "| model | workload | tok/s | share of the bound | step ms | outside the model | first token ms |",
        "|---|---|---|---|---|---|---|",
    ]
    decoded = [
        "| model | rows × context | tok/s | step ms | bound ms | share of the bound | outside the model |",
        "|---|---|---|---|---|---|---|",
    ]
    where = [f"| model | rows × context | idle | {' | '.join(KINDS)} |", "|---|---|---|" + "---|" * len(KINDS)]
    models = {"tiny": TINY} if tiny else {"Qwen3-0.6B": QWEN3_600M, "Llama-3.1-8B": LLAMA_8B}
    for name, config in models.items():
        if time.monotonic() > until:
            served.append(f"| {name} | {LATE} | | | | | |")
            continue
        try:
            bench = Bench(config, device, ceilings, _spec(tiny))
            prompts = Prompts(config["vocab_size"])
            served += _served(name, bench, prompts, tiny)
            decoded += _sweeps(name, bench, prompts, tiny, until)
            where += _where(name, bench, prompts, device, tiny, until)
            del bench
        except Exception as error:
            served.append(f"| {name} | {type(error).__name__}: {str(error)[:100]} | | | | | |")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return "\n\n".join(
        (
            "\n".join(served),
            "Decode steps alone, the prompts in the cache:",
            "\n".join(decoded),
            "Where the time of decode steps goes, of what the profiler saw on the device:",
            "\n".join(where),
        )
    )


def _spec(tiny: bool) -> EngineSpec:
    if tiny:
        return EngineSpec(total_pages=256, max_sequences=8, token_budget=64, max_context_tokens=256)
    return EngineSpec(max_sequences=256, token_budget=8192, max_waiting=4096, max_context_tokens=CONTEXT)


def _served(name: str, bench: Bench, prompts: Prompts, tiny: bool) -> Iterator[str]:
    """The 256 sequences of nano-vllm's and mini-sglang's benchmarks, and one long prompt twice."""
    bench.run(prompts.asks(8 if tiny else 256, 8 if tiny else 64, 4 if tiny else 16))  # kernels are compiled
    bench.capture()
    if tiny:
        yield _line(name, "8 sequences", bench.run(prompts.uneven(8, 3, 20)))
    else:
        yield _line(name, "256 sequences, 100 to 1,024 in and out", bench.run(prompts.uneven(256, 100, 1024)))
    size = 60 if tiny else 8192
    long = prompts.asks(1, size, 1)
    yield _line(name, f"a prompt of {size:,}, cold", bench.run(long))
    yield _line(name, "the same, warm", bench.run(long))


def _line(name: str, workload: str, done: Done) -> str:
    steps = done.all
    return (
        f"| {name} | {workload} | {done.tokens / done.seconds:.0f} | {steps.floor / done.seconds:.0%} "
        f"| {done.seconds / max(steps.steps, 1) * 1e3:.2f} | {1 - steps.model / done.seconds:.0%} "
        f"| {done.first_token * 1e3:.1f} |"
    )


def _sweeps(name: str, bench: Bench, prompts: Prompts, tiny: bool, until: float) -> Iterator[str]:
    grid = [(2, 20), (8, 30)] if tiny else [(batch, context) for batch in BATCHES for context in CONTEXTS]
    output = 5 if tiny else DECODED
    for batch, context in grid:
        if (needed := batch * (context + output)) > bench.room:
            yield f"| {name} | {batch} × {context} | does not fit: {needed:,} tokens, room for {bench.room:,} | | | | |"
            continue
        if time.monotonic() > until:
            yield f"| {name} | {batch} × {context} | {LATE} | | | | |"
            continue
        asks = prompts.asks(batch, context, output)
        bench.run([ask._replace(output=1) for ask in asks])
        steps = bench.run(asks).decode
        yield f"| {name} | {batch} × {context} | {_sweep(steps)} |"


def _sweep(steps: Tally) -> str:
    count, seconds = max(steps.steps, 1), max(steps.seconds, 1e-9)
    return (
        f"{steps.tokens / seconds:.0f} | {seconds / count * 1e3:.3f} | {steps.floor / count * 1e3:.3f} "
        f"| {steps.floor / seconds:.0%} | {1 - steps.model / seconds:.0%}"
    )


def _where(name: str, bench: Bench, prompts: Prompts, device: torch.device, tiny: bool, until: float) -> Iterator[str]:
    for batch, context in [(4, 20)] if tiny else PROFILED:
        if time.monotonic() > until:
            yield f"| {name} | {batch} × {context} | {LATE} |{' |' * len(KINDS)}"
            continue
        asks = prompts.asks(batch, context, 20 if tiny else 48)
        bench.run([ask._replace(output=1) for ask in asks])
        found: dict[str, Any] | None = profile(lambda: bench.run(asks), device)  # noqa: B023
        shares = [f"{found[kind]:.1%}" for kind in ("idle", *KINDS)] if found else ["–"] * (1 + len(KINDS))
        yield f"| {name} | {batch} × {context} | {' | '.join(shares)} |"
