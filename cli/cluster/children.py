"""The supervisor's own children: spawned in a session of their own, so that Ctrl-C reaches the supervisor alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from .processes import Identity, identify

TAIL_LINES = 5


class Child:
    """One process: its announcements (JSON lines on stdout), its log, its end."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self.identity = identify(process.pid) or Identity(process.pid, 0)
        self._process = process
        self._said: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._failure = ""
        assert process.stdout is not None
        Thread(target=self._read, args=(process.stdout,), name=f"{name}-stdout", daemon=True).start()

    def announcement(self, seconds: float) -> dict[str, Any] | None:
        """The next one, waiting at most so long."""
        try:
            return self._said.get(timeout=seconds)
        except Empty:
            return None

    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends it now, if it has not ended, and takes its exit code."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def epitaph(self) -> str:
        """Why it ended, in its own words if it left any."""
        self._process.wait()
        if self._failure:
            return self._failure
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"the {self.name} {how}; its last words:", *(f"    {line}" for line in tail)])

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if said.get("event") == "failed":
                self._failure = str(said.get("message"))
            self._said.put(said)


def spawn(name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
    """Starts `python -m MODULE ARGUMENTS`, tied to this process. Its log starts anew."""
    tether = [sys.executable, "-m", "headway.cli.cluster.tether", str(os.getpid()), module]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*tether, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            env=dict(environment),
            start_new_session=True,
        )
    return Child(name, process, log)
