"""How each server is started on a checkpoint, and what it needs to be told in a request."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import environments

START_S = 600.0
CONTEXT = 2048
HERE = Path(__file__).parent


class Running(NamedTuple):
    """A server that answers: its port, and what every request's body has to say beside the prompt."""

    port: int
    extra: Mapping[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def headway(model: Path, folder: Path, threads: int, arguments: tuple[str, ...] = ()) -> Iterator[Running]:
    """A local cluster of one replica: client, router and worker as anybody gets them."""
    command = str(Path(sys.executable).parent / "headway")
    with tempfile.TemporaryDirectory(prefix="headway-peers-") as home:
        environment = {**os.environ, "HEADWAY_HOME": home}
        up = [command, "up", "--detach", "--json", "--port", "0", "--replicas", "1", "--model", str(model), *arguments]
        done = subprocess.run(up, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        try:
            port = int(json.loads(done.stdout)["http"].rsplit(":", 1)[1])
            yield Running(port, {"return_token_ids": True})
        finally:
            subprocess.run([command, "down"], env=environment, check=True, capture_output=True)


@contextlib.contextmanager
def vllm(model: Path, folder: Path, threads: int) -> Iterator[Running]:
    """vLLM's own server on its CPU back end."""
    python, port = environments.vllm(folder), free_port()
    command = [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--max-model-len", str(CONTEXT), "--served-model-name", "m",
    ]  # fmt: skip
    environment = {
        "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
    }  # fmt: skip
    with _served(command, environment, port, "/health"):
        yield Running(port, {"model": "m"})


@contextlib.contextmanager
def llama_cpp(model: Path, folder: Path, threads: int) -> Iterator[Running]:
    """llama.cpp's server, float32 weights, 64 slots."""
    server, python = environments.llama_server(folder)
    gguf = folder / f"{model.name}-f32.gguf"
    if not gguf.exists():
        environments.call(python, HERE / "to_gguf.py", model, gguf)
    port, slots = free_port(), 64
    command = [
        str(server), "--model", str(gguf), "--host", "127.0.0.1", "--port", str(port), "--threads", str(threads),
        "--threads-batch", str(threads), "--parallel", str(slots), "--ctx-size", str(slots * 512), "--no-webui",
        "--log-disable",
    ]  # fmt: skip
    with _served(command, {}, port, "/health"):
        yield Running(port, {"cache_prompt": True})


SERVERS = {"headway": headway, "vllm": vllm, "llama.cpp": llama_cpp}


@contextlib.contextmanager
def _served(command: list[str], environment: Mapping[str, str], port: int, path: str) -> Iterator[None]:
    """The process of `command`, from when it answers on `path` to its end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, port, path, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, log: Any) -> None:
    patience = time.monotonic() + START_S
    while time.monotonic() < patience:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    log.seek(0)
    raise SystemExit(f"{process.args!r} does not serve:\n{log.read()[-3000:].decode(errors='replace')}")
