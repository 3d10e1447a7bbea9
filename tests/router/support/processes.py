"""Real processes of ours under test."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence


class Process:
    """`python -m MODULE ...` with all it prints; killed at the end of a test when it still runs."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.log = ""

    async def start(self) -> Process:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def said(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Waits until the log matches."""
        async with asyncio.timeout(timeout_s):
            while not (match := re.search(pattern, self.log)):
                assert self._process is not None
                assert self._process.returncode is None, f"it ended with {self._process.returncode}:\n{self.log}"
                await asyncio.sleep(0.02)
        return match

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self, timeout_s: float = 40.0) -> int:
        """The exit status, once it ends by itself."""
        assert self._process is not None
        assert self._reader is not None
        status = await asyncio.wait_for(self._process.wait(), timeout_s)
        await self._reader
        return status

    async def kill(self) -> None:
        """Ends it and all processes of its group."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(65536):
            self.log += data.decode(errors="replace")


class RouterProcess(Process):
    """A router, with the ports it took."""

    def __init__(self, *arguments: str, ports: Sequence[int] = (0, 0)) -> None:
        super().__init__(
            "headway.router",
            "--grpc-port",
            str(ports[0]),
            "--http-port",
            str(ports[1]),
            "--router-id",
            "rt",
            *arguments,
        )
        self.grpc = ""
        self.http = ""

    async def start(self) -> RouterProcess:
        await super().start()
        match = await self.said(r"serves: grpc (\S+), http (\S+)")
        self.grpc, self.http = match[1], f"http://{match[2]}"
        return self


class WorkerProcess(Process):
    """A worker group of the demo model, with the address it took."""

    def __init__(self, replica_id: str, *arguments: str) -> None:
        super().__init__("headway.worker", "--model", "demo", "--port", "0", "--replica-id", replica_id, *arguments)
        self.replica_id = replica_id
        self.endpoint = ""

    async def start(self) -> WorkerProcess:
        await super().start()
        self.endpoint = (await self.said(r"EngineService at (\S+),"))[1]
        return self
