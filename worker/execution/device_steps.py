"""Steps on a device: launched without waiting for it, and read when they are done.

The host packs what a step needs into one copy, launches, and begins one copy of what came out; the tokens also stay on
the device, where the next step picks them up. Prompt log probabilities and embeddings are the exception: a step that
makes some is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..plan import StepPlan, StepResult
from ..sampling.draws import HostDraws, draws_of
from .batch import build_inputs
from .graphs import DecodeGraphs
from .launched import Launched, Underway
from .step_work import Int64
from .transfer import Array, Outgoing, Stopwatch

if TYPE_CHECKING:
    from .runner import Runner


class Sampled(NamedTuple):
    """The rows that a step samples, in the plan's order, and where their tokens will stand: [samples] each."""

    rows: Int64
    positions: Int64


class DeviceSteps:
    """Launches the steps of a runner that has applied their plans."""

    def __init__(self, runner: Runner, graphs: DecodeGraphs | None = None) -> None:
        self._runner = runner
        self.graphs = graphs

    def launch(self, plan: StepPlan) -> Launched:
        """A step with work. For torch's inference mode."""
        runner = self._runner
        work = runner.rows.work
        sampled = Sampled(work.row[work.sample], work.end[work.sample])
        places = runner.scoring.places(plan.work)
        draws = self._draws(sampled)
        if self.graphs is not None and not places and self.graphs.suits():
            stopwatch = Stopwatch(runner.device)
            stopwatch.mark()
            if (done := self.graphs.run(_carried(sampled, draws))) is not None:
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
        count = len(sampled.rows)
        logits = runner.model.logits(hidden[:count]) if hidden is not None and count else None
        stopwatch.mark()
        scored, pooled = runner.prompts(hidden, count, places, plan)
        known = None if runner.sampler is None else StepResult(plan.step, [], 0.0, [], scored, pooled)
        return self._finish(plan, sampled, draws, logits, carried, stopwatch, known)

    def idle(self) -> None:
        """Called for plans without work. For torch's inference mode."""
        if self.graphs is not None:
            self.graphs.idle()

    def _draws(self, sampled: Sampled) -> HostDraws | None:
        sampler = self._runner.sampler
        if sampler is None or not len(sampled.rows):
            return None
        return sampler.draws(sampled.rows.tolist(), sampled.positions.tolist())

    def _finish(
        self,
        plan: StepPlan,
        sampled: Sampled,
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
        rows = sampled.rows.tolist()
        kept = runner.scoring.keep(logits, rows)
        tokens = runner.sampler.choose(logits, rows, draws_of(*carried[1:]), filtered=draws.filtered, masks=plan.masks)
        runner.last.note(carried[0], tokens)
        number = outgoing.add(tokens)
        logprobs = None if kept is None else kept.send(rows, tokens, outgoing)
        outgoing.send()
        return Underway(outgoing, stopwatch, known, number, logprobs)


def _carried(sampled: Sampled, draws: HostDraws | None) -> list[Array]:
    """What goes to the device with the inputs, for sampling."""
    return [] if draws is None else [sampled.rows, *draws[:3]]
