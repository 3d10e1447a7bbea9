"""What the forecast of page use is worth: the real scheduler over request traces, without a model.

python benchmarks/admission.py TRACE [--pages 2048] [--requests 2000] [--longest-prompt N]

A trace is a CSV with ContextTokens and GeneratedTokens, or JSON lines with input_length, output_length and hash_ids
(one of which stands for 512 tokens of prefix). There is always a queue. Each request may have `--max-new-tokens` tokens
and ends where the trace says. Three ways of admission: as long as pages are free ("free pages"), by the forecast, and
as if each output were as long as it may be ("longest").
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Request, Scheduler

EOS = 0
BLOCK = 512
PAGE_SIZE = 16
ROOT = root_key("benchmark")


class Asked(NamedTuple):
    """One line of a trace: token ids of the prompt, and the length of the output."""

    prompt: array[int]
    output: int


def read(path: Path, most: int) -> Iterator[Asked]:
    """Prompts of the trace's lengths and shared prefixes, at most `most` of them."""
    with path.open() as file:
        if path.suffix == ".csv":
            for number, line in zip(range(most), csv.DictReader(file), strict=False):
                yield Asked(_block(number, int(line["ContextTokens"])), int(line["GeneratedTokens"]))
            return
        for _, text in zip(range(most), file, strict=False):
            line = json.loads(text)
            prompt = array("I")
            for block in line["hash_ids"]:
                prompt += _block(block, BLOCK)
            yield Asked(prompt[: line["input_length"]], line["output_length"])


def _block(number: int, length: int) -> array[int]:
    return array("I", np.random.default_rng(number).integers(1, 50_000, length, np.uint32).tobytes())


class Run(NamedTuple):
    """What became of a trace."""

    steps: int
    preemptions: int
    computed: int
    recomputed: int
    output: int
    running: float
    used: float
    microseconds: float


class Ranks:
    """Samples EOS where the trace says, and else what no other request has there. A request is known by its seed."""

    def __init__(self, asked: list[Asked]) -> None:
        self._ends = [len(each.prompt) + each.output for each in asked]
        self._rows: dict[int, int] = {}
        self._known: dict[int, int] = {}

    def step(self, plan: StepPlan) -> StepResult:
        self._rows.update((added.row, added.sampling.seed) for added in plan.added)
        sampled = {work.row: work.computed + work.count + 1 for work in plan.work if work.sample}
        sampled |= {row: self._known[row] + 1 for row in np.frombuffer(plan.decodes, "<u4").tolist()}
        self._known |= sampled
        ends = [(self._rows[row], end) for row, end in sampled.items()]
        tokens = [EOS if end >= self._ends[request] else 1 + (request * 31 + end) % 50_000 for request, end in ends]
        return StepResult(plan.step, tokens)


def run(asked: list[Asked], limits: Limits, max_new: int, known: bool) -> Run:
    """`known`: no output is taken to be shorter than it may be."""
    pool = PagePool(limits.total_pages, PAGE_SIZE)
    scheduler, ranks = Scheduler(limits, pool), Ranks(asked)
    if known:
        lengths: Any = scheduler._roster.lengths
        lengths.totals = lambda given, quantiles: np.full(quantiles.shape, limits.max_context_tokens)
    waiting = iter(enumerate(asked))
    left, steps, running, used, computed, spent = len(asked), 0, 0, 0, 0, 0.0
    while left:
        while scheduler.waiting < limits.max_waiting and (each := next(waiting, None)) is not None:
            scheduler.submit(_request(*each, max_new))
        start = time.perf_counter()
        plan = scheduler.schedule()
        spent += time.perf_counter() - start
        outcomes = scheduler.update(ranks.step(plan)).outcomes
        left -= sum(outcome.ended for outcome in outcomes)
        working = len(plan.work) + plan.decoding
        steps, running, used = steps + 1, running + working, used + pool.used_pages
        computed += plan.total_tokens
    output = sum(each.output for each in asked)
    wanted = sum(len(each.prompt) + each.output - 1 for each in asked) - scheduler.cached_tokens
    share = used / steps / pool.total_pages
    return Run(
        steps, scheduler.preemptions, computed, computed - wanted, output, running / steps, share, spent / steps * 1e6
    )


def _request(number: int, asked: Asked, max_new: int) -> Request:
    return Request(
        session=0,
        id=number,
        tokens=asked.prompt[:],
        prompt_tokens=len(asked.prompt),
        max_new_tokens=max(max_new, asked.output),
        sampling=SamplingParams(seed=number),
        root=ROOT,
        page_size=PAGE_SIZE,
        eos_token_ids=[EOS],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the forecast of page use is worth.")
    parser.add_argument("trace", type=Path)
    parser.add_argument("--pages", type=int, default=2048, help="of 16 tokens")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--longest-prompt", type=int, help="prompts are cut to so many tokens")
    parser.add_argument("--max-new-tokens", type=int, default=1024)
    parser.add_argument("--max-sequences", type=int, default=64)
    parser.add_argument("--token-budget", type=int, default=512)
    options = parser.parse_args()
    room = options.pages * PAGE_SIZE - options.max_new_tokens
    read_all = (
        Asked(each.prompt[: options.longest_prompt], each.output) for each in read(options.trace, options.requests)
    )
    asked = [each for each in read_all if each.output and len(each.prompt) <= room]
    print("| admission | preemptions | recomputed | tokens computed | steps | running | pages in use | plan µs |")
    print("|---|---|---|---|---|---|---|---|")
    for name, forecast, known in (("free pages", False, False), ("forecast", True, False), ("longest", True, True)):
        limits = Limits(
            page_size=PAGE_SIZE,
            total_pages=options.pages,
            max_context_tokens=options.pages * PAGE_SIZE,
            max_sequences=options.max_sequences,
            token_budget=options.token_budget,
            max_waiting=options.max_sequences,
            vocab_size=50_000,
            admission_forecast=forecast,
        )
        done = run(asked, limits, options.max_new_tokens, known)
        print(
            f"| {name} | {done.preemptions} | {done.recomputed} | {done.computed} | {done.steps} | {done.running:.1f} "
            f"| {done.used:.0%} | {done.microseconds:.0f} |"
        )


if __name__ == "__main__":
    main()
