"""A rank: loads its slice, then runs every plan that comes. It decides nothing."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec

from ...core.errors import ConfigError
from ..plan import StepPlan, StepResult
from . import control
from .adapters import serve_reads
from .attachment import Attachment, attach
from .cores import take_core
from .errors import EXIT_LEADER_GONE, EXIT_RANK_FAILED
from .process import dump_stacks_on_signal, limit_threads, spare_collector
from .spec import RankSpec

if TYPE_CHECKING:
    from ..execution.launched import Launched
    from ..execution.runner import Runner

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 120.0


def run_rank(spec: RankSpec) -> None:
    """Runs one rank until the leader shuts the group down. Ends the process when the leader is gone or the rank fails.

    In a Ray actor it runs on any thread; in a process of its own, on the main one.
    """
    limit_threads(spec.group.device)
    dump_stacks_on_signal()
    try:
        leader = attach(spec)
    except (OSError, EOFError) as error:
        log.error("rank %d has no leader: %s", spec.rank, error)
        os._exit(EXIT_LEADER_GONE)
    try:
        _run(spec, leader)
    except BaseException as error:
        _fail(spec, leader, error)
    leader.close()


def _fail(spec: RankSpec, leader: Attachment, error: BaseException) -> None:
    """Tells the leader why, and ends the process: threads and native libraries may be in any state."""
    config = isinstance(error, ConfigError)
    if not config:
        log.error("rank %d failed", spec.rank, exc_info=error)
    text = str(error) if config else f"{type(error).__name__}: {error}"
    try:
        leader.send(control.Failed(text[: control.MAX_MESSAGE // 8], config))
        leader.close()
    finally:
        os._exit(EXIT_RANK_FAILED)


def _run(spec: RankSpec, leader: Attachment) -> None:
    from ..execution.runner import Runner
    from ..parallel.communicator import join

    group = spec.group
    comm = join(
        spec.rank, group.tp, group.pp, group.device, spec.rendezvous, JOIN_TIMEOUT_S,
        symmetric_memory=group.symmetric_memory,
    )  # fmt: skip
    runner = Runner(group, comm, lambda loaded: leader.send(control.Progress(loaded)))
    leader.send(control.Loaded(runner.room(), runner.info))
    allocate = leader.receive()
    if not isinstance(allocate, control.Allocate):
        raise RuntimeError(f"the leader said {allocate!r} where Allocate was due")
    pages = allocate.pages
    runner.allocate(pages.device, pages.host, pages.disk, leader.note)
    comm.loaded(group.engine.step_timeout_s)
    leader.send(control.Allocated())
    serve_reads(leader, runner, on_serving=spare_collector)  # for what the warm-up leaves behind
    core = take_core(group.world_size) if group.device == "cpu" else None
    if core is not None:
        log.info("rank %d computes on core %d", spec.rank, core.number)
    spare_collector()
    _work(spec, leader, runner)
    runner.close()


def _work(spec: RankSpec, leader: Attachment, runner: Runner) -> None:
    """Plan by plan. On a device the next one, if it is there, begins before the last one's result is waited for."""
    decoder = msgspec.msgpack.Decoder(StepPlan)
    begun: tuple[StepPlan, Launched] | None = None
    while True:
        if begun is not None and (begun[1].done or not leader.plan_waiting()):
            _finish(spec, leader, *begun)
            begun = None
        plan = decoder.decode(leader.read_plan())
        launched = None if plan.shutdown else runner.launch(plan)
        if begun is not None:
            _finish(spec, leader, *begun)
        if launched is None:
            return
        begun = plan, launched


def _finish(spec: RankSpec, leader: Attachment, plan: StepPlan, launched: Launched) -> None:
    result = launched.collect()
    if spec.samples and not plan.idle:
        message = msgspec.msgpack.encode(result or StepResult(plan.step, []))
        leader.write_result(message, spec.group.engine.step_timeout_s)
    leader.mark(plan.step)
