"""The `headway` command as its users run it, against the scripted server of the client's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from headway.cli.main import app
from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread

HEADWAY = [sys.executable, "-m", "headway.cli"]


class Command:
    """Runs the command with a home of its own, where `cluster.json` names the scripted server."""

    def __init__(self, home: Path, address: str) -> None:
        self.home = home
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")}
        self.env |= {"HEADWAY_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "100", "GRPC_VERBOSITY": "NONE"}
        self.write_cluster(f'{{"grpc": "{address}", "http": "http://127.0.0.1:1"}}')

    def write_cluster(self, document: str) -> None:
        (self.home / "cluster.json").write_text(document, encoding="utf-8")

    def __call__(self, *arguments: str, stdin: bytes | str = b"") -> subprocess.CompletedProcess[str]:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*HEADWAY, *arguments], input=given, capture_output=True, env=self.env, timeout=100)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def inside(self, *arguments: str) -> Result:
        """The command in this process: for many runs in one test."""
        return CliRunner().invoke(app, arguments, env=self.env)

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*HEADWAY, *arguments], env=self.env, **options)  # type: ignore[call-overload]


@pytest.fixture
def servicer() -> ScriptedInference:
    return ScriptedInference()


@pytest.fixture
def server(servicer: ScriptedInference) -> Iterator[ServerThread]:
    thread = ServerThread(servicer)
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def headway(tmp_path: Path, server: ServerThread) -> Command:
    return Command(tmp_path, server.address)
