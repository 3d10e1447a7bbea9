"""The engine from requests to tokens on one device, with dummy weights, beside what its steps would take at best."""

from __future__ import annotations

import json
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...core.blocks import root_key
from ...core.sampling import SamplingParams
from ...core.specs import EngineSpec, GroupSpec
from ...worker.engine import Engine, Stop, Submit
from ...worker.engine.reports import StepReport
from ...worker.execution.launched import Launched
from ...worker.execution.runner import Runner
from ...worker.pages import PagePool
from ...worker.parallel.communicator import alone
from ...worker.plan import StepPlan, StepResult
from ...worker.scheduler import Limits, Request, Scheduler
from .ceilings import Ceilings

QWEN3_600M: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "bfloat16", "eos_token_id": 0,
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": False, "hidden_act": "silu", "torch_dtype": "bfloat16", "eos_token_id": 0,
}  # fmt: skip
TINY = {**QWEN3_600M, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}


class Ask(NamedTuple):
    """One request: its prompt, and how many tokens to make."""

    prompt: Sequence[int]
    output: int


class Done(NamedTuple):
    """A finished workload. `floor` is the sum of its steps' least times, `model` the seconds in the forward pass."""

    seconds: float
    first_token: float
    tokens: int
    steps: int
    floor: float
    model: float


class Bench:
    """A loaded model; `run` serves a workload from an empty engine, with the cache as the last one left it."""

    def __init__(self, config: dict[str, Any], device: torch.device, ceilings: Ceilings, engine: EngineSpec) -> None:
        self._ceilings = ceilings
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            spec = GroupSpec(
                replica_id="bench", model_name="bench", model_path=folder, device=device.type, engine=engine,
                load_format="dummy",
            )  # fmt: skip
            self._runner = Runner(spec, alone(device.type), lambda share: None)
        self._runner.allocate(self._runner.suggested_pages())
        info = self._runner.info
        self._limits = Limits(
            page_size=info.page_size, total_pages=self._runner.total_pages,
            max_context_tokens=min(info.max_context_tokens, self._runner.total_pages * info.page_size),
            max_sequences=engine.max_sequences, token_budget=engine.token_budget, max_waiting=engine.max_waiting,
            vocab_size=info.vocab_size,
        )  # fmt: skip
        self._pool = PagePool(self._limits.total_pages, info.page_size)
        self._root = root_key(info.revision)
        self._weights = _weights(config)
        self._token_bytes = info.kv_bytes_per_page / info.page_size
        self._model_seconds = self._floor = 0.0
        self._steps = 0
        self._out: deque[tuple[StepPlan, Launched]] = deque()

    def run(self, asks: Sequence[Ask]) -> Done:
        """Serves them all at once."""
        scheduler = Scheduler(self._limits, self._pool)
        left, tokens, first = len(asks), 0, 0.0
        self._model_seconds = self._floor = 0.0
        self._steps = 0

        def publish(report: StepReport) -> None:
            nonlocal left, tokens, first
            for output in report.outputs.get(0, ()):
                tokens += len(output.token_ids)
                first = first or time.perf_counter()
                left -= bool(output.finish)
            if not left:
                engine.inbox.put(Stop())

        engine = Engine(scheduler, self, publish)
        for number, ask in enumerate(asks):
            request = Request(
                session=0, id=number, tokens=array("I", ask.prompt), prompt_tokens=len(ask.prompt),
                max_new_tokens=ask.output, sampling=SamplingParams(seed=number), root=self._root,
                page_size=self._limits.page_size,
            )  # fmt: skip
            engine.inbox.put(Submit(request))
        begun = time.perf_counter()
        engine.run()
        spent = time.perf_counter() - begun
        # The rows of the next workload are numbered anew; the ranks must have seen the old ones go.
        while self._out:
            scheduler.update(self.receive())
        self._runner.step(scheduler.schedule())
        return Done(spent, first - begun, tokens, self._steps, self._floor, self._model_seconds)

    def send(self, plan: StepPlan) -> None:
        """As a rank does: begins a step while the one before may still run."""
        self._out.append((plan, self._runner.launch(plan)))

    def receive(self) -> StepResult:
        """Waits for the oldest step that was begun."""
        plan, launched = self._out.popleft()
        result = launched.collect()
        assert result is not None
        if plan.work:
            context = sum(item.computed + item.count for item in plan.work)
            size = self._weights * 2 + context * self._token_bytes
            self._floor += self._ceilings.floor(size, 2 * self._weights * plan.total_tokens)
            self._steps += 1
            self._model_seconds += result.model_seconds
        return result


def _weights(config: dict[str, Any]) -> float:
    """Weights that a step reads: all but the embedding, of which it reads a few rows."""
    hidden, dim = config["hidden_size"], config["head_dim"]
    heads = 2 * config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    layer = hidden * (heads * dim + 3 * config["intermediate_size"])
    return float(config["num_hidden_layers"] * layer + config["vocab_size"] * hidden)


def table(device: torch.device, ceilings: Ceilings, *, tiny: bool) -> str:
    """Markdown. A workload that fails says so in its line, and the others go on."""
    lines = [
        "| model | workload | tok/s | share of the bound | step ms | outside the model | first token ms |",
        "|---|---|---|---|---|---|---|",
    ]
    models = {"tiny": TINY} if tiny else {"Qwen3-0.6B": QWEN3_600M, "Llama-3.1-8B": LLAMA_8B}
    for name, config in models.items():
        try:
            bench = Bench(config, device, ceilings, _spec(tiny))
            for workload, asks in _workloads(config["vocab_size"], tiny).items():
                lines.append(_line(name, workload, bench.run(asks)))
            del bench
        except Exception as error:
            lines.append(f"| {name} | {type(error).__name__}: {str(error)[:100]} | | | | | |")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return "\n".join(lines)


def _spec(tiny: bool) -> EngineSpec:
    if tiny:
        return EngineSpec(total_pages=256, max_sequences=8, token_budget=64)
    return EngineSpec(max_sequences=256, token_budget=8192, max_waiting=4096)


def _line(name: str, workload: str, done: Done) -> str:
    return (
        f"| {name} | {workload} | {done.tokens / done.seconds:.0f} | {done.floor / done.seconds:.0%} "
        f"| {done.seconds / max(done.steps, 1) * 1e3:.2f} | {1 - done.model / done.seconds:.0%} "
        f"| {done.first_token * 1e3:.1f} |"
    )


def _workloads(vocab: int, tiny: bool) -> dict[str, list[Ask]]:
    """The 256 sequences of nano-vllm's and mini-sglang's benchmarks, decoding alone, and one long prompt twice."""
    draw = np.random.default_rng(0)

    def prompt(size: int) -> list[int]:
        found: list[int] = draw.integers(0, vocab, size).tolist()
        return found

    if tiny:
        return {"8 sequences": [Ask(prompt(20), 5) for _ in range(8)], "again": [Ask(prompt(30), 2)]}
    sizes = draw.integers(100, 1025, (256, 2)).tolist()
    found = {"warm-up": [Ask(prompt(64), 16) for _ in range(256)]}
    found["256 sequences, 100 to 1,024 in and out"] = [Ask(prompt(size), output) for size, output in sizes]
    for batch in (1, 8, 64, 256):
        for context in (1024, 8192):
            if batch * context <= 256 * 1024:
                found[f"{batch} × {context}, 128 tokens each"] = [Ask(prompt(context), 128) for _ in range(batch)]
    long = prompt(8192)
    found["a prompt of 8,192, cold"] = [Ask(long, 1)]
    found["the same, warm"] = [Ask(long, 1)]
    return found
