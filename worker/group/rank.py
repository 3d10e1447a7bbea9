"""A rank: loads its slice, then runs every plan that comes. It decides nothing."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

import msgspec

from ...core.errors import ConfigError
from ..plan import StepPlan, StepResult
from . import control
from .adapters import serve_reads
from .cores import take_core
from .errors import EXIT_LEADER_GONE, EXIT_RANK_FAILED
from .process import dump_stacks_on_signal, limit_threads, spare_collector
from .ring import RingMemory, RingReader, RingWriter
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
        link = control.connect(spec.control)
        control.send(link, control.Attach(spec.rank, spec.token, os.getpid()))
        tie = _LeaderTie(spec.leader_pid, link)
    except OSError:
        os._exit(EXIT_LEADER_GONE)
    try:
        _Follower(spec, link).run()
    except BaseException as error:
        _fail(spec, link, error)
    tie.untie()
    link.close()


def _fail(spec: RankSpec, link: socket.socket, error: BaseException) -> None:
    """Tells the leader why, and ends the process: threads and native libraries may be in any state."""
    config = isinstance(error, ConfigError)
    if not config:
        log.error("rank %d failed", spec.rank, exc_info=error)
    text = str(error) if config else f"{type(error).__name__}: {error}"
    try:
        control.send(link, control.Failed(text[: control.MAX_MESSAGE // 8], config))
    finally:
        os._exit(EXIT_RANK_FAILED)


class _Follower:
    def __init__(self, spec: RankSpec, link: socket.socket) -> None:
        self._spec = spec
        self._link = link
        fds = control.receive_fds(link)
        self._plans = RingReader(spec.rank, fds[0], fds[1])
        self._results = RingWriter(RingMemory(fds[2], [fds[3]])) if len(fds) == 4 else None

    def run(self) -> None:
        from ..execution.runner import Runner
        from ..parallel.communicator import join

        spec = self._spec
        group = spec.group
        comm = join(
            spec.rank, group.tp, group.pp, group.device, spec.rendezvous, JOIN_TIMEOUT_S,
            symmetric_memory=group.symmetric_memory,
        )  # fmt: skip
        runner = Runner(group, comm, self._progress)
        control.send(self._link, control.Loaded(runner.room(), runner.info))
        allocate = control.receive(self._link)
        if not isinstance(allocate, control.Allocate):
            raise RuntimeError(f"the leader said {allocate!r} where Allocate was due")
        pages = allocate.pages
        runner.allocate(pages.device, pages.host, pages.disk, self._plans.note)
        comm.loaded(group.engine.step_timeout_s)
        control.send(self._link, control.Allocated())
        serve_reads(self._link, runner)
        core = take_core(group.world_size) if group.device == "cpu" else None
        if core is not None:
            log.info("rank %d computes on core %d", spec.rank, core.number)
        spare_collector()
        self._work(runner)
        runner.close()

    def _work(self, runner: Runner) -> None:
        """Plan by plan. On a device the next one, if it is there, begins before the last one's result is waited for."""
        decoder = msgspec.msgpack.Decoder(StepPlan)
        begun: tuple[StepPlan, Launched] | None = None
        while True:
            if begun is not None and (begun[1].done or not self._plans.waiting):
                self._finish(*begun)
                begun = None
            plan = decoder.decode(self._plans.read())
            launched = None if plan.shutdown else runner.launch(plan)
            if begun is not None:
                self._finish(*begun)
            if launched is None:
                return
            begun = plan, launched

    def _finish(self, plan: StepPlan, launched: Launched) -> None:
        result = launched.collect()
        if self._results is not None and plan.work:
            message = msgspec.msgpack.encode(result or StepResult(plan.step, []))
            self._results.write(message, self._spec.group.engine.step_timeout_s)
        self._plans.mark(plan.step)

    def _progress(self, loaded: float) -> None:
        control.send(self._link, control.Progress(loaded))


class _LeaderTie:
    """A thread that ends this process when the leader is gone. A Ray actor has no parent-death signal for that."""

    def __init__(self, leader_pid: int, link: socket.socket) -> None:
        self._link = link
        self._leader = os.pidfd_open(leader_pid)
        self._untie = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="headway-leader-tie", daemon=True)
        self._thread.start()

    def untie(self) -> None:
        os.eventfd_write(self._untie, 1)
        self._thread.join()
        os.close(self._leader)
        os.close(self._untie)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._leader, select.POLLIN)
        poll.register(self._untie, select.POLLIN)
        poll.register(self._link, 0)  # POLLHUP, when the leader closes its end, is always reported
        while True:
            for fd, _ in poll.poll():
                if fd == self._untie:
                    return
                os._exit(EXIT_LEADER_GONE)
