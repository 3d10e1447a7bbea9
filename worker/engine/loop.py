"""The loop: drain the inbox, plan a step, send it to the ranks, take the result of the oldest that is out, report.

One thread runs it. All that others may touch are the inbox, and `silence`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from ...core.errors import AlreadyExists, HeadwayError, Unavailable
from ...proto.headway.v1.sampling_pb2 import FINISH_REASON_ABORTED
from ..plan import StepPlan, StepResult
from ..scheduler import Advanced, Outcome, Request, Scheduler
from ..tiers import TierFigures
from .commands import Abort, Accept, Command, Compiled, Fail, Forget, Leave, Refuse, Stop, Submit
from .deadlines import Deadlines
from .meter import Meter
from .reports import Decoded, Figures, Output, Refused, StepReport
from .warm_up import warm_up


class Plane(Protocol):
    """The way to the ranks and back. Both raise when the group cannot go on."""

    def send(self, plan: StepPlan) -> None:
        """Has every rank work on a plan, after those that were sent before."""
        ...

    def receive(self) -> StepResult:
        """The result of the oldest plan whose result has not been received. Blocks until it is there."""
        ...


class Engine:
    """Requests in, reports out. `publish` is called from the loop's thread and must not block."""

    def __init__(
        self,
        scheduler: Scheduler,
        plane: Plane,
        publish: Callable[[StepReport], None],
        ping_interval_s: float = 1.0,
    ) -> None:
        self.inbox: SimpleQueue[Command] = SimpleQueue()
        self._scheduler = scheduler
        self._plane = plane
        self._out: deque[tuple[StepPlan, float]] = deque()
        self._result_at = 0.0
        self._publish = publish
        self._ping_interval_s = ping_interval_s
        self._meter = Meter(scheduler.limits.token_budget)
        self._requests: dict[tuple[int, int], Request] = {}
        self._deadlines = Deadlines()
        self._leaving: set[int] = set()
        self._compiling: dict[Request, None] = {}
        self._accepting = True
        self._stopping = False
        self._working = False
        self._progress_at = time.monotonic()
        self._plan_at = time.monotonic()
        self._totals = {"requests": 0, "prompt_tokens": 0, "output_tokens": 0, "aborts": 0}
        self._new_report()

    def silence(self) -> float:
        """Seconds since the loop last made progress with work to do; 0 when it is idle."""
        return time.monotonic() - self._progress_at if self._working else 0.0

    def run(self) -> None:
        """Runs until Stop. What still runs then is aborted. Raises what the ranks raise."""
        while not self._stopping:
            told = self._drain_inbox(block=not self._scheduler.busy)
            self._working = True
            self._progress_at = time.monotonic()
            for request in self._deadlines.take(self._progress_at, self._requests.values()):
                self._abort(request)
                told = True
            self._forget_adapters()
            if self._scheduler.busy:
                self._step()
            else:
                if told:
                    self._report()
                if not self._stopping and self._ping_due_in() <= 0:
                    self.ping()
            self._progress_at = time.monotonic()
            self._working = self._scheduler.busy

    def warm_up(self) -> None:
        """Runs steps of no request, before `run`."""
        warm_up(self._scheduler, self._plane.send, self._plane.receive)
        self._plan_at = time.monotonic()

    def ping(self) -> None:
        """An empty plan through every rank: health covers them all, also when there is nothing to do."""
        self._send()
        self._receive()

    def _ping_due_in(self) -> float:
        """Seconds. Counted from the last plan, so that commands which give the ranks nothing to do put no ping off."""
        return self._plan_at + self._ping_interval_s - time.monotonic()

    def figures(self) -> Figures:
        """The load now. Only for the loop's thread."""
        scheduler, meter = self._scheduler, self._meter
        return Figures(
            running=scheduler.running,
            waiting=scheduler.waiting + len(self._compiling),
            uncached_tokens=scheduler.uncached_tokens + sum(len(request.tokens) for request in self._compiling),
            used_pages=scheduler.pool.used_pages,
            cached_pages=scheduler.pool.cached_pages,
            total_pages=scheduler.pool.total_pages,
            prefill_rate=meter.prefill_rate,
            decode_step_ms=meter.decode_step_s * 1000,
            accepting=self._accepting,
            cached_tokens=scheduler.cached_tokens,
            steps=meter.steps,
            preemptions=scheduler.preemptions,
            step_seconds=meter.step_seconds,
            model_seconds=meter.model_seconds,
            page_size=scheduler.pool.page_size,
            tiers=scheduler.pool.tiers.figures() if scheduler.pool.tiers is not None else TierFigures(),
            **self._totals,
        )

    def _step(self) -> None:
        """Sends the next plan if it may go out, and takes a result once no other one may."""
        if self._scheduler.may_plan:
            self._send()
        if not self._scheduler.may_plan:
            self._receive()
            self._report()

    def _send(self) -> None:
        plan = self._scheduler.schedule()
        self._out.append((plan, time.perf_counter()))
        self._plane.send(plan)
        self._plan_at = time.monotonic()

    def _receive(self) -> None:
        result = self._plane.receive()
        update = self._scheduler.update(result)
        for outcome in update.outcomes:
            self._take(outcome)
        self._take_advanced(update.advanced)
        for outcome in self._scheduler.settle():
            self._take(outcome)
        plan, sent_at = self._out.popleft()
        now = time.perf_counter()
        # While several are out, a step begins when the one before ends.
        # With one stage every row is in the next plan, too.
        turns = 1 + len(self._out) if self._scheduler.limits.stages > 1 else 1
        self._meter.step(plan, now - max(sent_at, self._result_at), result.model_seconds, turns)
        self._result_at = now

    def _take(self, outcome: Outcome) -> None:
        request = outcome.request
        if outcome.error is not None:
            self._forget(request, outcome.error)
            return
        if outcome.finish:
            del self._requests[request.session, request.id]
        self._totals["output_tokens"] += len(outcome.token_ids)
        cached = None if request.first_output_sent else request.cached_tokens
        request.first_output_sent = True
        self._say(request, outcome, cached)

    def _take_advanced(self, advanced: Advanced) -> None:
        self._totals["output_tokens"] += len(advanced.ids)
        for session in set(advanced.sessions.tolist()):
            assert session not in self._decoded, "a report follows each result"
            mine = advanced.sessions == session
            self._decoded[session] = Decoded(advanced.ids[mine], advanced.tokens[mine])

    def _say(self, request: Request, outcome: Outcome, cached: int | None) -> None:
        preemptions = request.preemptions if outcome.finish else 0
        output = Output(
            request.id,
            outcome.token_ids,
            outcome.finish,
            outcome.stop_token_id,
            cached,
            preemptions,
            outcome.embedding,
            outcome.logprobs,
            outcome.prompt_logprobs,
        )
        self._outputs.setdefault(request.session, []).append(output)

    def _report(self) -> None:
        changes = self._scheduler.pool.events.drain()
        self._publish(
            StepReport(self._outputs, self._decoded, self._refusals, self._submitted, changes, self.figures())
        )
        self._new_report()

    def _new_report(self) -> None:
        self._outputs: dict[int, list[Output]] = {}
        self._decoded: dict[int, Decoded] = {}
        self._refusals: dict[int, list[Refused]] = {}
        self._submitted: dict[int, int] = {}

    def _drain_inbox(self, *, block: bool) -> bool:
        """Handles what waits; with `block`, sleeps until something does, or a ping or a deadline is due.

        Says if anything did."""
        told = False
        try:
            if block:
                until_deadline = self._deadlines.next - time.monotonic()
                self._handle(self.inbox.get(timeout=max(0.0, min(self._ping_due_in(), until_deadline))))
                told = True
            while True:
                self._handle(self.inbox.get_nowait())
                told = True
        except Empty:
            return told

    def _handle(self, command: Command) -> None:
        match command:
            case Submit(request, compiling):
                self._submit(request, compiling=compiling)
            case Compiled(request, refusal):
                self._compiled(request, refusal)
            case Refuse(session, id, error):
                self._submitted[session] = id
                self._refuse(session, id, error)
            case Abort(session, id):
                if (live := self._requests.get((session, id))) is not None:
                    self._abort(live)
            case Fail(session, id, error):
                if (live := self._requests.get((session, id))) is not None:
                    self.fail(live, error)
            case Leave(session):
                for request in [request for request in self._requests.values() if request.session == session]:
                    self._abort(request)
                for said in (self._outputs, self._decoded, self._refusals, self._submitted):
                    said.pop(session, None)
            case Accept(accepting):
                self._accepting = accepting
            case Forget(adapter):
                self._leaving.add(adapter)
            case Stop():
                for request in list(self._requests.values()):
                    self._abort(request)
                self._stopping = True

    def _submit(self, request: Request, *, compiling: bool) -> None:
        self._submitted[request.session] = request.id
        handle = (request.session, request.id)
        try:
            if not self._accepting:
                raise Unavailable("the replica drains and takes no new requests")
            if handle in self._requests:
                raise AlreadyExists(f"id: a request with id {request.id} is live in this session", field="id")
            if compiling:
                self._scheduler.check_room(len(self._compiling))
                self._compiling[request] = None
            else:
                self._enter(request)
        except HeadwayError as error:
            self._refuse(request.session, request.id, error)
            return
        self._requests[handle] = request
        self._deadlines.add(request)

    def _compiled(self, request: Request, refusal: HeadwayError | None) -> None:
        if request not in self._compiling:
            return
        del self._compiling[request]
        try:
            if refusal is not None:
                raise refusal
            self._enter(request)
        except HeadwayError as error:
            del self._requests[request.session, request.id]
            self._refuse(request.session, request.id, error)

    def _enter(self, request: Request) -> None:
        self._scheduler.submit(request)
        self._totals["requests"] += 1
        self._totals["prompt_tokens"] += request.prompt_tokens

    def _forget_adapters(self) -> None:
        """Those that are to go and that no live request runs with any more; the next plan tells the ranks."""
        if self._leaving:
            for adapter in self._leaving - {request.adapter for request in self._requests.values()}:
                self._leaving.remove(adapter)
                self._scheduler.adapters.forget(adapter)

    def _refuse(self, session: int, id: int, error: HeadwayError) -> None:
        self._refusals.setdefault(session, []).append(Refused(id, error))

    def fail(self, request: Request, error: HeadwayError) -> None:
        """Ends a live request with an error, between steps. Only for the loop's thread; others send Fail."""
        self._leave_queue(request)
        self._forget(request, error)

    def _forget(self, request: Request, error: HeadwayError) -> None:
        del self._requests[request.session, request.id]
        self._totals["aborts"] += 1
        self._refuse(request.session, request.id, error)

    def _leave_queue(self, request: Request) -> None:
        if request in self._compiling:
            del self._compiling[request]
        else:
            self._scheduler.abort(request)

    def _abort(self, request: Request) -> None:
        self._leave_queue(request)
        del self._requests[request.session, request.id]
        self._totals["aborts"] += 1
        self._say(request, Outcome(request, [], FINISH_REASON_ABORTED), None)
