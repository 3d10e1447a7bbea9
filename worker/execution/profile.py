"""The largest steps that may be asked of a rank, run once at start: what they take tells what is left for pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.sampling import SamplingParams
from ..plan import RowAdded, RowWork, StepPlan

if TYPE_CHECKING:
    from .runner import Runner

LOGPROBS = 20
WAY = SamplingParams(seed=1, temperature=0.9, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.1)


def largest_steps(sequences: int, token_budget: int, max_context: int, page_size: int) -> Iterator[StepPlan]:
    """A step of the whole token budget for as many rows as there may be, then one token for each row, one of them with
    the longest context. All rows sample with every filter and penalty, and want log probabilities.

    Every row's pages are page 0: a cache of one page serves. The last plan frees the rows.
    """
    counts, left = [], token_budget
    for others in reversed(range(sequences)):  # as much as the budget has, in as few rows as it takes
        counts.append(max(1, min(left - others, max_context - 2)))
        left -= counts[-1]

    def added(row: int, known: int, computed: int) -> RowAdded:
        pages = [0] * (-(-(known + 1) // page_size))
        tokens = np.zeros(known, "<u4").tobytes()
        return RowAdded(row, tokens, known, computed, pages, WAY, logprobs=LOGPROBS)

    rows = [added(row, count, 0) for row, count in enumerate(counts)]
    yield StepPlan(0, [], rows, [], [RowWork(row, 0, count, True, []) for row, count in enumerate(counts)])
    long = max(1, max_context - 1)
    work = [RowWork(0, long - 1, 1, True, [])]
    work += [RowWork(row, counts[row], 1, True, []) for row in range(1, sequences)]
    appended = [(row, 0) for row in range(1, sequences)]
    yield StepPlan(1, [0], [added(0, long, long - 1)], appended, work)
    yield StepPlan(2, list(range(sequences)), [], [], [])


def run_largest_steps(runner: Runner) -> None:
    """Runs them over a cache of one page, and leaves the runner as it was, without a cache. All ranks take part."""
    engine = runner.spec.engine
    replayer, runner.replayer = runner.replayer, None
    runner.allocate(1)
    budget = max(engine.token_budget, engine.max_sequences)
    for plan in largest_steps(engine.max_sequences, budget, runner.info.max_context_tokens, engine.page_size):
        runner.launch(plan).collect()
    runner.caches = []
    runner.replayer = replayer


def step_bytes(runner: Runner) -> int:
    """CUDA memory that the largest step takes beside weights and cache. All ranks have to call."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(runner.device)
    torch.cuda.reset_peak_memory_stats(runner.device)
    run_largest_steps(runner)
    torch.cuda.synchronize(runner.device)
    peak = torch.cuda.max_memory_reserved(runner.device) - before
    torch.cuda.empty_cache()
    return peak
