"""A whole cluster of real processes, started and stopped by the command line as a user would."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

HEADWAY = Path(sys.executable).parent / "headway"


class Cluster:
    """One `headway up --detach`, with its own HEADWAY_HOME."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "HEADWAY_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.document: dict[str, Any] = {}

    def run(self, *arguments: str, timeout: float = 90, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`headway ARGUMENTS` to its end; with `check`, a failure shows what it printed."""
        command = [str(HEADWAY), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def up(self, *arguments: str) -> dict[str, Any]:
        self.document = json.loads(self.run("up", "--detach", "--json", "--port", "0", *arguments, timeout=200).stdout)
        return self.document

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "--json").stdout)

    def wait_for(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        """The first status that `holds`; fails with the last one seen."""
        until = time.monotonic() + seconds
        while True:
            status = self.status()
            if holds(status):
                return status
            assert time.monotonic() < until, status["replicas"]
            time.sleep(0.2)

    def all_pids(self) -> list[int]:
        return [*self.document["pids"], *(pid for replica in self.document["replicas"] for pid in replica["pids"])]


def shared_memory() -> set[Path]:
    """What lies in shared memory now, of whatever process."""
    return set(Path("/dev/shm").iterdir())


def descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def left_behind(pids: list[int]) -> list[str]:
    """Processes of `pids` that still run; zombies have ended."""
    alive = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(f"{pid} {process.name()}")
        except psutil.NoSuchProcess:
            pass
    return alive
