"""A rank's connection to its leader, beside it or on another node."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
from typing import Protocol

from . import control
from .errors import EXIT_LEADER_GONE
from .nodes.place import this_node
from .ring import RingMemory, RingReader, RingWriter
from .spec import RankSpec
from .vigil import Vigil

log = logging.getLogger(__name__)


class Attachment(Protocol):
    """While it stands, the end of the leader is the end of this process."""

    def send(self, message: control.Message) -> None:
        """Any thread."""
        ...

    def receive(self) -> control.Message | None:
        """The leader's next message, once there is one; None when the leader is gone. One thread at a time."""
        ...

    def read_plan(self) -> bytes:
        """The next plan, once there is one."""
        ...

    def plan_waiting(self) -> bool:
        """Whether the next plan is there already."""
        ...

    def write_result(self, message: bytes, timeout_s: float) -> None:
        """On the rank that samples. Raises TimeoutError when the leader makes no room in time."""
        ...

    def mark(self, number: int) -> None:
        """Tells the leader which step is done."""
        ...

    def note(self, number: int) -> None:
        """Tells the leader something else, from any thread."""
        ...

    def close(self) -> None:
        """Sends what is left. From here on the leader may end alone."""
        ...


def attach(spec: RankSpec) -> Attachment:
    """Connects to the leader. Raises OSError when it is gone or cannot be reached."""
    if spec.leader_node == this_node():
        return Beside(spec)
    if spec.endpoints is None:
        raise ConnectionError(f"rank {spec.rank} is on another node than its leader, which expects none there")
    from .nodes.ends import Outpost

    far = Outpost(spec.endpoints, spec.rank, spec.group.engine.step_timeout_s, samples=spec.samples)
    far.send(control.Attach(spec.rank, spec.token, os.getpid()))
    return far


class Beside:
    """On the leader's node: a Unix socket, and rings in memory that is handed over by it."""

    def __init__(self, spec: RankSpec) -> None:
        self._link = control.connect(spec.control)
        control.send(self._link, control.Attach(spec.rank, spec.token, os.getpid()))
        self._vigil = Vigil(spec.group.engine.step_timeout_s, spec.group.pp)
        self._tie = _LeaderTie(spec.leader_pid, self._link, self._vigil)
        reader, (plans, wake, *results) = control.receive_fds(self._link)
        self._plans = RingReader(reader, plans, wake)
        self._results = RingWriter(RingMemory(results[0], results[1:])) if results else None
        self.mark, self.note = self._plans.mark, self._plans.note

    def read_plan(self) -> bytes:
        self._vigil.waits()
        plan = self._plans.read()
        self._vigil.read()
        return plan

    def plan_waiting(self) -> bool:
        return self._plans.waiting

    def send(self, message: control.Message) -> None:
        control.send(self._link, message)

    def receive(self) -> control.Message | None:
        message = control.receive(self._link)
        if isinstance(message, control.Serving):
            self._vigil.begin()
        return message

    def write_result(self, message: bytes, timeout_s: float) -> None:
        assert self._results is not None
        self._results.write(message, timeout_s)

    def close(self) -> None:
        self._tie.untie()
        self._link.close()


class _LeaderTie:
    """A thread that ends this process when the leader is gone: a Ray actor has no parent-death signal for that.

    A leader that lives but sends no plans it kills first, so that whoever supervises it starts the group again."""

    def __init__(self, leader_pid: int, link: socket.socket, vigil: Vigil) -> None:
        self._link = link
        self._vigil = vigil
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
            for fd, _ in poll.poll(int(self._vigil.tick_s * 1000)):
                if fd == self._untie:
                    return
                os._exit(EXIT_LEADER_GONE)
            if self._vigil.look():
                log.critical("the leader has sent no plan for %g s: it is killed", self._vigil.patience_s)
                signal.pidfd_send_signal(self._leader, signal.SIGKILL)
                os._exit(EXIT_LEADER_GONE)
