"""The leader's side of its ranks: starts them, follows their start, and watches that each lives and keeps pace.

One thread polls everything that could say something: the control sockets, each process (by pidfd, so a death is seen in
well under 100 ms), and the clock. Of ranks on other nodes it is the connection that tells (nodes/door.py).
"""

from __future__ import annotations

import functools
import hmac
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...core.errors import ConfigError
from ...core.specs import GroupSpec
from ..execution.info import ModelInfo
from ..tiers.counts import PageCounts
from . import control
from .errors import GroupFailed
from .fanout import Fanout
from .launcher import RankLauncher, SubprocessLauncher
from .member import Member
from .nodes.channels import Receiver
from .nodes.door import Door
from .nodes.ends import Exchange
from .nodes.place import this_node
from .pulse import Pulse
from .ring import RingMemory, RingReader
from .spec import RankSpec, sampling_rank

log = logging.getLogger(__name__)

LAST_WORDS_S = 0.05
LOOK_S = 0.2


class Followers:
    """All ranks: the first one a process beside the leader's, the others by `launcher`. `on_failure(why, config)` is
    called once, from the watching thread."""

    def __init__(
        self,
        spec: GroupSpec,
        launcher: RankLauncher,
        *,
        on_progress: Callable[[], None],
        on_failure: Callable[[str, bool], None],
    ) -> None:
        self._spec = spec
        self._launcher = launcher
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._token = secrets.token_hex(16)
        self._name = f"headway-{secrets.token_hex(8)}"
        self._server = control.listen(self._name)
        address = launcher.address
        self._exchange = Exchange(address, self._token, spec.engine.step_timeout_s) if address is not None else None
        self._door = self._exchange.door if self._exchange is not None else None
        self._results = RingMemory.make(1)
        self.plans: Fanout
        self.results: RingReader | Receiver
        self.members: list[Member] = []
        self.sent = 0
        self.worked = 0  # the last plan that was no mere ping
        self._pulse = Pulse(spec.world_size, spec.engine.step_timeout_s)
        self._changed = threading.Condition()
        self._failed = False
        self._leaving = False
        self._look_at = 0.0
        self._ended: set[int] = set()  # ranks on other nodes whose process had ended at the last look
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._thread = threading.Thread(target=self._watch, name="headway-watch", daemon=True)

    def launch(self, rendezvous: str) -> None:
        """Starts every rank and the watch over them. The calling thread has to live as long as the group.

        From here on there are `plans` and `results`."""
        # The leader holds the first device for its first rank, which so needs nobody else to place it.
        launchers = [SubprocessLauncher(), *[self._launcher] * (self._spec.world_size - 1)]
        handles = [
            launcher.launch(
                RankSpec(
                    group=self._spec,
                    rank=rank,
                    rendezvous=rendezvous,
                    control=self._name,
                    token=self._token,
                    leader_pid=os.getpid(),
                    leader_node=this_node(),
                    endpoints=self._exchange.endpoints if self._exchange is not None else None,
                )
            )
            for rank, launcher in enumerate(launchers)
        ]
        # Only now: asking for a process id may wait until that process is up.
        self.members = [Member(rank, handle, self._door) for rank, handle in enumerate(handles)]
        self._connect()
        self._thread.start()

    def _connect(self) -> None:
        """Makes the ways of plans and results, now that it is known where each rank is."""
        far = [member.rank for member in self.members if not member.beside]
        beside = [member.rank for member in self.members if member.beside]
        if far and self._exchange is None:
            raise GroupFailed(f"rank {far[0]} came up on another node, which its launcher had ruled out")
        self.plans = Fanout(beside, self._exchange.plans(far) if far and self._exchange is not None else None)
        if self._exchange is not None and sampling_rank(self._spec) in far:
            self.results = self._exchange.results
        else:
            self.results = RingReader(0, self._results.memory, self._results.events[0])

    def loaded(self) -> float:
        """Mean share of the weights that the ranks have loaded."""
        return sum(member.loaded for member in self.members) / self._spec.world_size

    def wait_loaded(self) -> tuple[ModelInfo, PageCounts]:
        """The model, as the first rank has it, and the pages that all ranks have room for, once all have loaded.

        Raises GroupFailed, and ConfigError when nodes have different files."""
        self._wait(lambda: all(member.model is not None for member in self.members))
        models = [member.model for member in self.members if member.model is not None]
        self._check_alike([model.info for model in models])
        return models[0].info, functools.reduce(PageCounts.least, (model.room for model in models))

    def allocate(self, pages: PageCounts) -> None:
        """Tells every rank to make its pages."""
        for member in self.members:
            member.send(control.Allocate(pages))

    def wait_allocated(self) -> None:
        """Returns when every rank waits for plans. Raises GroupFailed."""
        self._wait(lambda: all(member.allocated for member in self.members))

    def read_adapter(self, number: int, path: Path) -> None:
        """Tells every rank to read its part of an adapter, beside its steps."""
        for member in self.members:
            member.send(control.ReadAdapter(number, str(path)))

    def wait_adapter(self, number: int, timeout_s: float) -> list[control.AdapterRead]:
        """The ranks' answers: fewer than there are ranks when some do not answer in time."""
        with self._changed:
            self._changed.wait_for(lambda: all(number in member.reads for member in self.members), timeout_s)
            answers = [member.reads.pop(number, None) for member in self.members]
        return [answer for answer in answers if answer is not None]

    def serve(self) -> None:
        """Tells the ranks that plans come steadily from here on."""
        for member in self.members:
            member.send(control.Serving())

    def expect_end(self) -> None:
        """Before the shutdown plan: a rank that ends from here on has not died."""
        self._leaving = True

    def leave(self, timeout_s: float) -> None:
        """After the shutdown plan: waits for the ranks to end, and kills those that do not."""
        self._leaving = True
        deadline = time.monotonic() + timeout_s
        while any(member.handle.alive() for member in self.members) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Kills what is left and ends the watch."""
        self._leaving = True
        self.kill()
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._server.close()
        for member in self.members:
            member.close()
        if self._exchange is not None:
            self._exchange.close()

    def notes(self) -> list[int]:
        """What each rank noted last: how far its disk is (worker/tiers/progress.py)."""
        return [self.plans.note(rank) for rank in range(len(self.members))]

    def dump_stacks(self) -> None:
        for member in self.members:
            member.ask_for_stacks()
        if self._door is not None and threading.current_thread() is self._thread:
            self._door.flush()

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: ready() or self._failed)
            if self._failed:
                raise GroupFailed("a rank failed")

    def _fail(self, why: str, config: bool = False) -> None:
        if self._failed or self._leaving:
            return
        with self._changed:
            self._failed = True
            self._changed.notify_all()
        self._on_failure(why, config)

    # What follows runs on the watching thread.

    def _watch(self) -> None:
        try:
            self._poll.register(self._wake, select.POLLIN)
            self._poll.register(self._server, select.POLLIN)
            for fd in self._door.fds if self._door is not None else ():
                self._poll.register(fd, select.POLLIN)
            for member in self.members:
                if not member.beside:
                    continue
                if member.pidfd < 0:
                    self._died(member)
                else:
                    self._poll.register(member.pidfd, select.POLLIN)
            tick_ms = max(1, int(self._pulse.tick_s * 1000))
            while not self._leaving:
                for fd, _ in self._poll.poll(tick_ms):
                    self._heard(fd)
                if self._door is not None:
                    self._hear_from_afar(self._door)
                self._check_pulse()
        except Exception as error:
            log.exception("the watch over the ranks failed")
            self._fail(f"the watch over the ranks failed: {error}")

    def _heard(self, fd: int) -> None:
        if fd == self._server.fileno():
            self._accept()
        for member in self.members:
            if fd == member.pidfd:
                self._poll.unregister(fd)
                self._died(member)
            elif member.link is not None and fd == member.link.fileno():
                self._receive(member, member.link)

    def _accept(self) -> None:
        """Takes a rank's connection when it proves itself, and hands it the memory."""
        link, _ = self._server.accept()
        link.settimeout(1.0)
        try:
            hello = control.receive(link) if control.same_user(link) else None
        except (OSError, ValueError):
            hello = None
        if not isinstance(hello, control.Attach) or not hmac.compare_digest(hello.token, self._token):
            log.warning("a stranger connected to the control socket")
            link.close()
            return
        member = self.members[hello.rank]
        reader, fds = self.plans.share(hello.rank)
        if hello.rank == sampling_rank(self._spec):
            fds += [self._results.memory, self._results.events[0]]
        control.send_fds(link, reader, fds)
        member.link = link
        self._poll.register(link, select.POLLIN)

    def _receive(self, member: Member, link: socket.socket) -> None:
        message = control.receive(link)
        if message is None:
            # The process is gone or about to be: its pidfd says which.
            self._poll.unregister(link)
            return
        self._take(member, message)

    def _hear_from_afar(self, door: Door) -> None:
        for rank, message in door.receive():
            self._take(self.members[rank], message)
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        if lost := door.lost():
            for rank, message in door.receive():  # its last words may have come since
                self._take(self.members[rank], message)
            member = self.members[lost[0]]
            self._fail(f"rank {member.rank} on {member.handle.node} is gone, or its node no longer answers")
        self._look_for_the_dead()

    def _look_for_the_dead(self) -> None:
        """A rank on another node may end before it is attached, when no connection can tell. Found at the second look,
        so that last words under way come first."""
        ended = {member.rank for member in self.members if not member.beside and not member.handle.alive()}
        for rank in sorted(ended & self._ended):
            self._fail(f"rank {rank} on {self.members[rank].handle.node} died")
        self._ended = ended

    def _take(self, member: Member, message: control.Message) -> None:
        with self._changed:
            match message:
                case control.Beat(mark, note):
                    self.plans.heard(member.rank, mark, note)
                    return
                case control.Progress(loaded):
                    member.loaded = loaded
                case control.Loaded():
                    member.loaded, member.model = 1.0, message
                case control.Allocated():
                    member.allocated = True
                case control.AdapterRead(number):
                    member.reads[number] = message
                case control.Failed(text, config):
                    member.last_words = (text, config)
            self._changed.notify_all()
        if member.last_words is not None:
            text, config = member.last_words
            self._fail(text if config else f"rank {member.rank} failed: {text}", config)
        else:
            self._on_progress()

    def _died(self, member: Member) -> None:
        """A rank's process ended. What it said last tells more than that."""
        if member.link is not None and member.last_words is None:
            member.link.settimeout(LAST_WORDS_S)
            try:
                while (message := control.receive(member.link)) is not None:
                    if isinstance(message, control.Failed):
                        member.last_words = (message.message, message.config)
            except (OSError, ValueError):
                pass
        if member.last_words is not None:
            text, config = member.last_words
            self._fail(text if config else f"rank {member.rank} failed: {text}", config)
        else:
            self._fail(f"rank {member.rank} (pid {member.handle.pid}) died")

    def _check_alike(self, infos: Sequence[ModelInfo]) -> None:
        """Each node reads files of its own. Raises ConfigError when they are not the same on all."""
        for member, info in zip(self.members, infos, strict=True):
            for name in ("revision", "dtype"):
                mine, theirs = getattr(infos[0], name), getattr(info, name)
                if mine != theirs:
                    raise ConfigError(
                        f"rank {member.rank} on {member.handle.node} has the model with {name} {theirs}, rank 0 on "
                        f"{self.members[0].handle.node} with {mine}: every node needs the same model_path and dtype"
                    )

    def _check_pulse(self) -> None:
        marks = [self.plans.mark(rank) for rank in range(len(self.members))]
        late = self._pulse.check(time.monotonic(), self.sent, self.worked, marks)
        if late:
            names = ", ".join(str(rank) for rank in late)
            self._fail(f"no progress for {self._spec.engine.step_timeout_s:g} s in step {self.sent} on rank {names}")
