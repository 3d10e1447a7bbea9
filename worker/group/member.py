"""One rank, as its leader knows it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

from . import control
from .launcher import RankHandle
from .nodes.door import Door


class Member:
    """A rank's process and connection, and how far its start is."""

    def __init__(self, rank: int, handle: RankHandle, door: Door | None = None) -> None:
        """Of a rank on another node `door` is the way to it."""
        self.rank = rank
        self.handle = handle
        self.beside = handle.beside
        self.link: socket.socket | None = None
        self.loaded = 0.0
        self.model: control.Loaded | None = None
        self.allocated = False
        self.reads: dict[int, control.AdapterRead] = {}
        self.last_words: tuple[str, bool] | None = None
        self._door = door
        self.pidfd = -1
        if self.beside:
            with suppress(ProcessLookupError):
                self.pidfd = os.pidfd_open(handle.pid)

    def send(self, message: control.Message) -> None:
        """To a rank that is attached."""
        if self.beside:
            assert self.link is not None
            control.send(self.link, message)
        else:
            assert self._door is not None
            self._door.send(self.rank, message)

    def ask_for_stacks(self) -> None:
        """The process writes its stacks to its stderr, unless it is stopped or dead."""
        if self.beside:
            self._signal(signal.SIGUSR1)
        else:
            self.send(control.Stacks())

    def kill(self) -> None:
        """Ends the process. By pidfd first, which cannot hit another process that got its number."""
        self._signal(signal.SIGKILL)
        self.handle.kill()

    def close(self) -> None:
        if self.link is not None:
            self.link.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _signal(self, number: signal.Signals) -> None:
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)
