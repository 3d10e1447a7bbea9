"""Time of a decode step on one rank: in the model and around it; then what leader and rank do outside the model and
sampling, where nothing hides behind anything.

python benchmarks/step.py [--model DIR] [--dtype TYPE] [--weight-dtype TYPE] [--batch 1 16 64] [--context 256]
    [--steps 200] [--temperature 0] [--profile]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from overhead import measure_overhead  # type: ignore[import-not-found]  # beside this script

from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec, GroupSpec
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import alone
from headway.worker.plan import RowAdded, RowWork, StepPlan

DEMO = Path(__file__).parents[1] / "demo" / "headway-demo"


def fill(runner: Runner, batch: int, context: int, steps: int, sampling: SamplingParams) -> None:
    """Adds `batch` rows whose prompts of about `context` tokens are computed."""
    draw = np.random.default_rng(0)
    per_row = -(-(context * 5 // 4 + steps + 1) // runner.info.page_size)
    runner.allocate(batch * per_row)
    for row in range(batch):
        size = int(draw.integers(context * 3 // 4, context * 5 // 4 + 1))
        tokens = draw.integers(5, runner.info.vocab_size, size).astype("<u4").tobytes()
        pages = list(range(row * per_row, (row + 1) * per_row))
        added = RowAdded(row, tokens, size, 0, pages, sampling)
        runner.step(StepPlan(0, [], [added], [(row, 5)], [RowWork(row, 0, size, False, [])]))


def decode(runner: Runner, batch: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step: whole, and in the model."""
    lengths = runner.rows.known[:batch].tolist()
    whole: list[float] = []
    model: list[float] = []
    tokens: list[int] = []
    for step in range(steps):
        appended = list(enumerate(tokens))
        work = [RowWork(row, lengths[row] - 1 + step, 1, True, []) for row in range(batch)]
        start = time.perf_counter()
        result = runner.step(StepPlan(step, [], [], appended, work))
        whole.append(time.perf_counter() - start)
        assert result is not None
        model.append(result.model_seconds)
        tokens = result.token_ids
    return whole, model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--weight-dtype", default="auto")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--batch-invariant", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--profile", action="store_true", help="torch's profile of the last batch")
    options = parser.parse_args()
    engine = EngineSpec(
        max_sequences=max(options.batch),
        token_budget=max(512, *options.batch),
        batch_invariant=options.batch_invariant,
        weight_dtype=options.weight_dtype,
    )
    spec = GroupSpec(
        replica_id="bench",
        model_name="bench",
        model_path=str(options.model),
        device=options.device,
        dtype=options.dtype,
        engine=engine,
    )
    sampling = SamplingParams(temperature=options.temperature, top_p=options.top_p)
    print(
        "batch  context  step ms p50  fastest  model ms p50  around the model  tok/s at p50"
        "  leader + rank µs p50  fastest"
    )
    for batch in options.batch:
        runner = Runner(spec, alone(options.device), lambda share: None)
        fill(runner, batch, options.context, options.steps, sampling)
        whole, model = decode(runner, batch, options.steps)
        middle, inside = float(np.median(whole)), float(np.median(model))
        overhead = measure_overhead(
            Runner(spec, alone(options.device), lambda share: None), batch, options.context, options.steps, sampling
        )
        leader, rank, both = (float(np.median(part)) for part in (overhead.leader, overhead.rank, overhead.both))
        print(
            f"{batch:5}  {options.context:7}  {middle * 1e3:11.2f}  {min(whole) * 1e3:7.2f}  {inside * 1e3:12.2f}"
            f"  {1 - inside / middle:16.1%}  {batch / middle:12.0f}"
            f"  {leader * 1e6:9.0f} + {rank * 1e6:4.0f} = {both * 1e6:4.0f}  {min(overhead.both) * 1e6:7.0f}"
        )
    if options.profile:
        runner = Runner(spec, alone(options.device), lambda share: None)
        fill(runner, batch, options.context, 20, sampling)
        with torch.profiler.profile() as profile:
            decode(runner, batch, 20)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


if __name__ == "__main__":
    main()
