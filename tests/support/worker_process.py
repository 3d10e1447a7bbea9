"""A worker group in processes of its own: `python -m headway.worker`, started and ended as a user would."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

READY_S = 90.0


class WorkerProcess:
    """Started on construction; `wait_ready` returns when it serves."""

    def __init__(self, *arguments: str, entry: Sequence[str] = ("-m", "headway.worker")) -> None:
        self.log = Path(tempfile.mkstemp(prefix="headway-worker-", suffix=".log")[1])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *entry, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                start_new_session=True,
            )
        self.endpoint = ""
        self.pids: list[int] = []

    def wait_ready(self) -> "WorkerProcess":
        """Returns when it serves. Safe to repeat."""
        if self.pids:
            return self
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"EngineService at (\S+), pids ([\d ]+)\n", line)
        assert match, f"no address but {line!r}; the log says:\n{self.log.read_text()}"
        self.endpoint = match[1]
        self.pids = [int(pid) for pid in match[2].split()]
        return self

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> None:
        """Ends what is left, however the test went."""
        for pid in self.pids or [self.process.pid]:
            if psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                os.kill(pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.unlink()


def running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_gone(pids: list[int], seconds: float) -> list[int]:
    """The pids that still run after at most `seconds`."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in pids if running(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left
