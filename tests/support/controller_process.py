"""The controller in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headway.cli.cluster.admin import ReplicaStatus, look, statuses


class ControllerProcess:
    """`python -m headway.controller` and what it announced."""

    def __init__(self, log: Path, *arguments: str, **variables: str) -> None:
        # Tied to us: what it started must not outlive a test run that is killed.
        tether = [sys.executable, "-m", "headway.cli.cluster.tether", str(os.getpid())]
        command = [*tether, "headway.controller", "--announce", *arguments]
        environment = {**os.environ, "HEADWAY_LOG_DIR": str(log.parent), **variables}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("wb"), env=environment)
        assert self.process.stdout is not None
        self.announced = [json.loads(self.process.stdout.readline())]
        if self.announced[0]["event"] == "listening":
            self.announced.append(json.loads(self.process.stdout.readline()))
            self.address = f"127.0.0.1:{self.announced[0]['grpc_port']}"

    def replicas(self) -> dict[str, ReplicaStatus]:
        return {replica.id: replica for replica in statuses(look(self.address))}

    def until(self, holds: Callable[[dict[str, ReplicaStatus]], bool]) -> dict[str, ReplicaStatus]:
        limit = time.monotonic() + 150
        while not holds(replicas := self.replicas()):
            assert time.monotonic() < limit and self.process.poll() is None, replicas
            time.sleep(0.1)
        return replicas

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)
