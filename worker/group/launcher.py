"""Starting ranks: as subprocesses here, as Ray actors by the controller's own launcher."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from typing import Protocol

from ...core.errors import ConfigError
from .process import limit_threads
from .spec import RankSpec


class RankHandle(Protocol):
    """A rank's process, on the leader's own node or on another."""

    @property
    def pid(self) -> int:
        """As its own node counts processes."""
        ...

    @property
    def node(self) -> str:
        """The node's name, for people."""
        ...

    @property
    def beside(self) -> bool:
        """Whether it is on the leader's node: whether `this_node` is the same in both."""
        ...

    def alive(self) -> bool:
        """Whether the process runs."""
        ...

    def kill(self) -> None:
        """Ends the process at once, without waiting long for it. Safe to repeat."""
        ...


class RankLauncher(Protocol):
    """Starts the process that calls `run_rank(rank)`, and returns without waiting for what it does."""

    @property
    def address(self) -> str | None:
        """The leader's address for ranks that may come up on other nodes; None when all will be beside it."""
        ...

    def launch(self, rank: RankSpec) -> RankHandle:
        """Called from a thread that lives as long as the group."""
        ...


KILL_S = 1.0
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def device_of(rank: int, visible: str | None) -> str:
    """The one CUDA device that a rank's process is to see, given the leader's CUDA_VISIBLE_DEVICES.

    The leader itself computes on the first. Raises ConfigError when there are too few.
    """
    if visible is None:
        return str(rank)
    devices = [device.strip() for device in visible.split(",") if device.strip()]
    if rank >= len(devices):
        raise ConfigError(f"rank {rank} needs a CUDA device, and {_VISIBLE} names {len(devices)}: {visible!r}")
    return devices[rank]


class _Subprocess:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.beside = True
        self.node = platform.node()

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # held up in the kernel, by a driver for instance
            self._process.wait(KILL_S)


class SubprocessLauncher:
    """`python -m headway.worker.group`, with the rank's spec on stdin. The kernel ends it when the leader dies."""

    address = None

    def launch(self, rank: RankSpec) -> RankHandle:
        limit_threads(rank.group.device)
        environment = dict(os.environ)
        if rank.group.device == "cuda":
            environment[_VISIBLE] = device_of(rank.rank, os.environ.get(_VISIBLE))
        process = subprocess.Popen(
            [sys.executable, "-m", "headway.worker.group"], stdin=subprocess.PIPE, env=environment
        )
        assert process.stdin is not None
        try:
            process.stdin.write(rank.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once: whoever watches the process will see
        return _Subprocess(process)
