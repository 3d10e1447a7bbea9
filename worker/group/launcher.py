"""Starting ranks: as subprocesses here, as Ray actors by the controller's own launcher."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Protocol

from .process import limit_threads
from .spec import RankSpec


class RankHandle(Protocol):
    """A rank's process, on the leader's own machine."""

    @property
    def pid(self) -> int: ...

    @property
    def node(self) -> str: ...

    def alive(self) -> bool:
        """Whether the process runs."""
        ...

    def kill(self) -> None:
        """Ends the process at once. Safe to repeat."""
        ...


class RankLauncher(Protocol):
    """Starts the process that calls `run_rank(rank)`, and returns without waiting for what it does."""

    def launch(self, rank: RankSpec) -> RankHandle:
        """Called from a thread that lives as long as the group."""
        ...


class _Subprocess:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.node = platform.node()

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class SubprocessLauncher:
    """`python -m headway.worker.group`, with the rank's spec on stdin. The kernel ends it when the leader dies."""

    def launch(self, rank: RankSpec) -> RankHandle:
        limit_threads(rank.group.device)
        process = subprocess.Popen(
            [sys.executable, "-m", "headway.worker.group"], stdin=subprocess.PIPE, env=dict(os.environ)
        )
        assert process.stdin is not None
        try:
            process.stdin.write(rank.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once: whoever watches the process will see
        return _Subprocess(process)
