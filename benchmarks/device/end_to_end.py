"""The engine's tables: workloads beside what their steps would take at best, and where a decode step's time goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...core.specs import EngineSpec
from .bed import LATE, Bed
from .engine import Bench, Done, Tally
from .profile import profile
from .profile_kinds import KINDS
from .report import Row
from .workloads import CONTEXT, LLAMA_8B, QWEN3_600M, TINY, Ask, Prompts

BATCHES = (1, 8, 64, 256)
CONTEXTS = (1024, 8192)
DECODED = 128  # tokens of each row in a sweep
PROFILED = ((64, 1024), (256, 1024))
MODELS = {"tiny": TINY, "Qwen3-0.6B": QWEN3_600M, "Llama-3.1-8B": LLAMA_8B}


def made_ready(config: dict[str, Any], bed: Bed) -> Bench:
    """The engine, after a workload for which its kernels are compiled, and with every step captured that will be."""
    tiny = bed.tiny
    bench = Bench(config, bed.device, bed.ceilings, _spec(tiny))
    bench.run(Prompts(config["vocab_size"]).asks(8 if tiny else 256, 8 if tiny else 64, 4 if tiny else 16))
    bench.capture()
    return bench


def served(name: str, bed: Bed) -> Iterator[Row]:
    """The 256 sequences of nano-vllm's and mini-sglang's benchmarks, and one long prompt twice."""
    prompts = Prompts(MODELS[name]["vocab_size"])
    uneven = prompts.uneven(8, 3, 20) if bed.tiny else prompts.uneven(256, 100, 1024)
    size = 60 if bed.tiny else 8192
    long = prompts.asks(1, size, 1)
    workloads: list[tuple[str, list[Ask]]] = [
        ("8 sequences" if bed.tiny else "256 sequences, 100 to 1,024 in and out", uneven),
        (f"a prompt of {size:,}, cold", long),
        ("the same, warm", long),
    ]
    for workload, asks in workloads:
        late = bed.late
        yield Row("served", [name, workload, *([LATE] if late else _served(_bench(name, bed).run(asks)))])


def decoded(name: str, bed: Bed) -> Iterator[Row]:
    """Decode steps over a grid of batches and contexts."""
    grid = [(2, 20), (8, 30)] if bed.tiny else [(batch, context) for batch in BATCHES for context in CONTEXTS]
    output = 5 if bed.tiny else DECODED
    for batch, context in grid:
        yield Row("decoded", [name, f"{batch} × {context}", *_swept(name, bed, batch, context, output)])


def where(name: str, bed: Bed) -> Iterator[Row]:
    """Shares of the device's time."""
    for batch, context in [(4, 20)] if bed.tiny else PROFILED:
        yield Row("where", [name, f"{batch} × {context}", *_profiled(name, bed, batch, context)])


def _bench(name: str, bed: Bed) -> Bench:
    return bed.bench(name, MODELS[name])


def _spec(tiny: bool) -> EngineSpec:
    if tiny:
        return EngineSpec(total_pages=256, max_sequences=8, token_budget=64, max_context_tokens=256)
    return EngineSpec(max_sequences=256, token_budget=8192, max_waiting=4096, max_context_tokens=CONTEXT)


def _served(done: Done) -> list[str]:
    steps = done.all
    return [
        f"{done.tokens / done.seconds:.0f}", f"{steps.floor / done.seconds:.0%}",
        f"{done.seconds / max(steps.steps, 1) * 1e3:.2f}", f"{1 - steps.model / done.seconds:.0%}",
        f"{done.first_token * 1e3:.1f}",
    ]  # fmt: skip


def _swept(name: str, bed: Bed, batch: int, context: int, output: int) -> list[str]:
    if bed.late:
        return [LATE]
    bench = _bench(name, bed)
    if (needed := batch * (context + output)) > bench.room:
        return [f"does not fit: {needed:,} tokens, room for {bench.room:,}"]
    asks = Prompts(MODELS[name]["vocab_size"]).asks(batch, context, output)
    bench.run([ask._replace(output=1) for ask in asks])
    return _sweep(bench.run(asks).decode)


def _sweep(steps: Tally) -> list[str]:
    count, seconds = max(steps.steps, 1), max(steps.seconds, 1e-9)
    return [
        f"{steps.tokens / seconds:.0f}", f"{seconds / count * 1e3:.3f}", f"{steps.floor / count * 1e3:.3f}",
        f"{steps.floor / seconds:.0%}", f"{1 - steps.model / seconds:.0%}",
    ]  # fmt: skip


def _profiled(name: str, bed: Bed, batch: int, context: int) -> list[str]:
    if bed.late:
        return [LATE]
    bench = _bench(name, bed)
    asks = Prompts(MODELS[name]["vocab_size"]).asks(batch, context, 20 if bed.tiny else 48)
    bench.run([ask._replace(output=1) for ask in asks])
    found = profile(lambda: bench.run(asks), bed.device)
    return [f"{found[kind]:.1%}" for kind in ("idle", *KINDS)] if found else ["–"] * (1 + len(KINDS))
