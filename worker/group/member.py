"""One rank, as its leader knows it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

from .control import AdapterRead, Loaded
from .launcher import RankHandle


class Member:
    """A rank's process and connection, and how far its start is."""

    def __init__(self, rank: int, handle: RankHandle) -> None:
        self.rank = rank
        self.handle = handle
        self.link: socket.socket | None = None
        self.loaded = 0.0
        self.model: Loaded | None = None
        self.allocated = False
        self.reads: dict[int, AdapterRead] = {}
        self.last_words: tuple[str, bool] | None = None
        try:
            self.pidfd = os.pidfd_open(handle.pid)
        except ProcessLookupError:
            self.pidfd = -1

    def ask_for_stacks(self) -> None:
        """The process writes its stacks to its stderr, unless it is stopped or dead."""
        self._signal(signal.SIGUSR1)

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
