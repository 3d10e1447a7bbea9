"""Steps on a device: launched without waiting for it, and read when they are done.

The host packs what a step needs into one copy, launches, and begins one copy of what came out; the tokens also stay on
the device, where the next step picks them up. Prompt log probabilities and embeddings are the exception: a step that
makes some is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..plan import RowWork, StepPlan, StepResult
from ..sampling.draws import HostDraws, draws_of
from .batch import build_inputs
from .graphs import DecodeGraphs
from .launched import Launched, Underway
from .transfer import Array, Outgoing, Stopwatch

if TYPE_CHECKING:
    from .runner import Runner


class DeviceSteps:
    """Launches the steps of a runner that has applied their plans."""

    def __init__(self, runner: Runner, graphs: DecodeGraphs | None = None) -> None:
        self._runner = runner
        self.graphs = graphs

    def launch(self, plan: StepPlan) -> Launched:
        """A step with work. For torch's inference mode."""
        runner = self._runner
        sampled = [item for item in plan.work if item.sample]
        places = runner.scoring.places(plan.work)
        draws = self._draws(sampled)
        if self.graphs is not None and not places and self.graphs.suits(plan):
            stopwatch = Stopwatch(runner.device)
            stopwatch.mark()
            if (done := self.graphs.run(plan, _carried(sampled, draws))) is not None:
                logits, carried = done
                stopwatch.mark()
                known = None if runner.sampler is None else StepResult(plan.step, [])
                return self._finish(plan, sampled, draws, logits, carried, stopwatch, known)
        inputs, carried = build_inputs(
            runner.rows, plan.work, places, runner.model.windows, runner.device, runner.dtype,
            runner.queries_a_tile, runner.adapters.segments, runner.last, _carried(sampled, draws),
            runner.invariant,
        )  # fmt: skip
        stopwatch = Stopwatch(runner.device)
        stopwatch.mark()
        hidden = runner.model.forward(inputs, runner.caches)
        logits = runner.model.logits(hidden[: len(sampled)]) if hidden is not None and sampled else None
        stopwatch.mark()
        scored, pooled = runner.prompts(hidden, len(sampled), places, plan)
        known = None if runner.sampler is None else StepResult(plan.step, [], 0.0, [], scored, pooled)
        return self._finish(plan, sampled, draws, logits, carried, stopwatch, known)

    def idle(self) -> None:
        """Called for plans without work. For torch's inference mode."""
        if self.graphs is not None:
            self.graphs.idle()

    def _draws(self, sampled: list[RowWork]) -> HostDraws | None:
        sampler = self._runner.sampler
        if sampler is None or not sampled:
            return None
        return sampler.draws([item.row for item in sampled], [item.computed + item.count for item in sampled])

    def _finish(
        self,
        plan: StepPlan,
        sampled: list[RowWork],
        draws: HostDraws | None,
        logits: Tensor | None,
        carried: list[Tensor],
        stopwatch: Stopwatch,
        known: StepResult | None,
    ) -> Launched:
        """Samples, and sends home what there is to send."""
        runner, outgoing = self._runner, Outgoing(self._runner.device)
        if logits is None or draws is None or runner.sampler is None:
            outgoing.send()
            return Underway(outgoing, stopwatch, known, None, None)
        rows = [item.row for item in sampled]
        kept = runner.scoring.keep(logits, rows)
        tokens = runner.sampler.choose(logits, rows, draws_of(*carried[1:]), filtered=draws.filtered, masks=plan.masks)
        runner.last.note(carried[0], tokens)
        number = outgoing.add(tokens)
        logprobs = None if kept is None else kept.send(rows, tokens, outgoing)
        outgoing.send()
        return Underway(outgoing, stopwatch, known, number, logprobs)


def _carried(sampled: list[RowWork], draws: HostDraws | None) -> list[Array]:
    """What goes to the device with the inputs, for sampling."""
    if draws is None:
        return []
    return [np.array([item.row for item in sampled], np.int64), *draws[:3]]
