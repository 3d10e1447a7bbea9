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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub

from . import environments

START_S = 600.0
CONTEXT = 2048
HERE = Path(__file__).parent
# As the checkpoints are written; a server that is told nothing takes it.
OWN = "bfloat16"
FLOAT32 = "float32"
TRANSFORMERS_PAGE = 256
STREAMED = {"temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}


class Launch(NamedTuple):
    """How a server is to run. `dtype` is FLOAT32, or empty for the server's own choice; `streams` of at most `tokens`
    each run at once."""

    model: Path
    folder: Path
    threads: int
    dtype: str
    streams: int
    tokens: int
    arguments: tuple[str, ...] = ()


class Running(NamedTuple):
    """A server that answers: its port, what it computes in, what every request's body has to say beside the prompt, and
    whether that must be text."""

    port: int
    dtype: str
    fields: Mapping[str, Any]
    as_text: bool = False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def headway(launch: Launch) -> Iterator[Running]:
    """A local cluster of one replica: client, router and worker as anybody gets them."""
    command = str(Path(sys.executable).parent / "headway")
    dtype = ["--dtype", launch.dtype] if launch.dtype else []
    with tempfile.TemporaryDirectory(prefix="headway-peers-") as home:
        environment = {**os.environ, "HEADWAY_HOME": home}
        up = [command, "up", "--detach", "--json", "--port", "0", "--replicas", "1", "--model", str(launch.model)]
        done = subprocess.run([*up, *dtype, *launch.arguments], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        try:
            port = int(json.loads(done.stdout)["http"].rsplit(":", 1)[1])
            status = subprocess.run([command, "status", "--json"], env=environment, capture_output=True, check=True)
            yield Running(port, _dtype_of(json.loads(status.stdout)["replicas"][0]["endpoint"]), STREAMED)
        finally:
            subprocess.run([command, "down"], env=environment, check=True, capture_output=True)


def _dtype_of(endpoint: str) -> str:
    """What a replica of ours says that it computes in: "cpu, float32", and perhaps more."""
    with grpc.insecure_channel(endpoint) as channel:
        answer = EngineServiceStub(channel).Describe(engine_pb2.DescribeRequest(), timeout=10)
    return str(answer.device.split(", ")[1])


@contextlib.contextmanager
def vllm(launch: Launch) -> Iterator[Running]:
    """vLLM's own server on its CPU back end."""
    python, port = environments.vllm(launch.folder), free_port()
    command = [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(launch.model), "--host", "127.0.0.1",
        "--port", str(port), "--max-model-len", str(CONTEXT), "--served-model-name", "m",
        *(["--dtype", launch.dtype] if launch.dtype else []), *launch.arguments,
    ]  # fmt: skip
    environment = {
        "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(launch.threads), "VLLM_CPU_OMP_THREADS_BIND": f"0-{launch.threads - 1}",
    }  # fmt: skip
    with _served(command, environment, port, "/health"):
        yield Running(port, launch.dtype or OWN, {**STREAMED, "model": "m"})


@contextlib.contextmanager
def llama_cpp(launch: Launch) -> Iterator[Running]:
    """llama.cpp's server; its own type is the one that the checkpoint has."""
    server, gguf = gguf_of(launch.model, launch.folder, launch.dtype)
    port = free_port()
    command = [
        str(server), "--model", str(gguf), "--host", "127.0.0.1", "--port", str(port), "--threads", str(launch.threads),
        "--threads-batch", str(launch.threads), "--parallel", str(launch.streams), "--ctx-size",
        str(launch.streams * launch.tokens), "--no-webui", "--log-disable", *launch.arguments,
    ]  # fmt: skip
    with _served(command, {}, port, "/health"):
        yield Running(port, launch.dtype or OWN, {**STREAMED, "cache_prompt": True})


def gguf_of(model: Path, folder: Path, dtype: str) -> tuple[Path, Path]:
    """llama.cpp's server, and the file in which it reads `model`: both are made once."""
    server, python = environments.llama_server(folder)
    file = folder / f"{model.name}-{'f32' if dtype == FLOAT32 else 'bf16'}.gguf"
    if not file.exists():
        environments.call(python, HERE / "to_gguf.py", model, file, dtype or OWN)
    return server, file


@contextlib.contextmanager
def transformers(launch: Launch) -> Iterator[Running]:
    """transformers' own server with continuous batching. It takes text, and no `ignore_eos`: an end token that there is
    none of says the same."""
    python, port = environments.transformers(launch.folder), free_port()
    pages = -(-launch.tokens // TRANSFORMERS_PAGE) * (launch.streams + 1)
    command = [
        str(python.parent / "transformers"), "serve", str(launch.model), "--continuous-batching", "--device", "cpu",
        "--dtype", launch.dtype or "auto", "--host", "127.0.0.1", "--port", str(port), "--cb-num-blocks", str(pages),
        "--cb-max-batch-tokens", str(CONTEXT), "--log-level", "error", *launch.arguments,
    ]  # fmt: skip
    environment = {
        "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(launch.threads)
    }  # fmt: skip
    config = json.dumps({"do_sample": False, "eos_token_id": -1})
    with _served(command, environment, port, "/health"):
        fields = {"stream": True, "temperature": 0, "generation_config": config}
        yield Running(port, launch.dtype or OWN, fields, as_text=True)


SERVERS = {"headway": headway, "vllm": vllm, "llama.cpp": llama_cpp, "transformers": transformers}
# What takes long and is done once.
PREPARE: dict[str, Callable[[Path, Path, str], object]] = {
    "vllm": lambda model, folder, dtype: environments.vllm(folder),
    "llama.cpp": gguf_of,
    "transformers": lambda model, folder, dtype: environments.transformers(folder),
}


@contextlib.contextmanager
def _served(command: list[str], environment: Mapping[str, str], port: int, path: str) -> Iterator[None]:
    """The process of `command`, from when it answers on `path` to its end. Raises RuntimeError when it never does."""
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
    raise RuntimeError(f"{process.args!r} does not serve:\n{log.read()[-3000:].decode(errors='replace')}")
