"""The chart's commands are ones that the processes understand, and its probes ask what they answer."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.controller.http import build_app
from headway.controller.settings import parse
from headway.core.servers import WILDCARDS, reachable_host
from headway.demo import DEMO_DIR
from headway.tests.helm.support.manifests import Manifests


def process(container: dict[str, object]) -> list[str]:
    """The container's argument list after `python -m MODULE`, its variables filled in."""
    arguments: list[str] = list(container["args"])  # type: ignore[call-overload]
    given = {"POD_IP": "10.1.2.3", "POD_NAME": "router-0", "REDIS_PASSWORD": "secret"}
    return [re.sub(r"\$\((\w+)\)", lambda match: given[match.group(1)], argument) for argument in arguments]


@functools.cache
def known_flags(name: str) -> set[str]:
    command = [sys.executable, "-m", f"headway.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


@pytest.mark.parametrize("name", ["router", "controller"])
def test_every_flag_exists(manifests: Manifests, name: str) -> None:
    known = known_flags(name)
    arguments = process(manifests.container(name))
    flags = {argument.partition("=")[0] for argument in arguments}
    assert flags and flags <= known, flags - known
    assert f"headway.{name}" in " ".join(manifests.container(name)["command"])


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that eight ranks could split, in place of models that are not on this machine."""
    directory = tmp_path_factory.mktemp("wide")
    config = json.loads((DEMO_DIR / "config.json").read_text())
    wide = dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_hidden_layers"), 8)
    (directory / "config.json").write_text(json.dumps({**config, **wide, "hidden_size": 8 * config["head_dim"]}))
    return directory


def test_the_controller_takes_its_arguments(manifests: Manifests, wide_model: Path) -> None:
    arguments = process(manifests.container("controller"))
    settings = parse([re.sub("^--model=/.*", f"--model={wide_model}", argument) for argument in arguments])
    assert (settings.grpc_port, settings.http_port, settings.host) == (8003, 8002, "0.0.0.0")
    # Leaders listen on their pod's address, and report that and not the wildcard.
    assert settings.group_host == "0.0.0.0" and reachable_host(settings.group_host) not in WILDCARDS
    service = manifests.one("Service", "-controller")["metadata"]["name"]
    assert settings.advertise == service and service in settings.allowed_hosts


def paths(container: dict[str, dict[str, dict[str, str]]]) -> set[str]:
    probes = (container.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness"))
    return {probe["httpGet"]["path"] for probe in probes if "httpGet" in probe}


def test_the_controllers_probes_are_routes_of_it(manifests: Manifests) -> None:
    routes = {route.path for route in build_app(None, lambda: True, frozenset()).routes}  # type: ignore[arg-type, attr-defined]
    assert paths(manifests.container("controller")) <= routes


@pytest.fixture(scope="session")
def router() -> Iterator[int]:
    """The HTTP port of a real router whose controller does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "headway.router", "--controller=127.0.0.1:1", f"--http-port={port}"]
    child = subprocess.Popen([*command, "--grpc-port=0", "--grace=1"], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        child.terminate()
        child.wait(30)


def status(port: int, path: str) -> int:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_routers_probes_tell_alive_from_ready(manifests: Manifests, router: int) -> None:
    container = manifests.container("router")
    assert status(router, container["livenessProbe"]["httpGet"]["path"]) == 200
    assert status(router, container["startupProbe"]["httpGet"]["path"]) == 200
    # Alive and not ready: it knows no replica.
    assert status(router, container["readinessProbe"]["httpGet"]["path"]) == 503
    for monitor in manifests.kind("ServiceMonitor"):
        assert status(router, monitor["spec"]["endpoints"][0]["path"]) == 200
    assert status(router, "/no-such-path") == 404


async def test_rays_probe_asks_the_socket(manifests: Manifests, tmp_path: object) -> None:
    """The probe's program, with its paths moved: fails without a listener, passes with one."""
    _, _, program = manifests.container("ray-head")["readinessProbe"]["exec"]["command"]
    directory = f"{tmp_path}"[:60]
    sockets = re.search(r"glob\('([^']+)'\)", program)
    assert sockets and sockets.group(1) == "/tmp/ray/session_latest/sockets/raylet"
    with socket.create_server(("127.0.0.1", 0)) as gcs, socket.socket(socket.AF_UNIX) as raylet:
        name = f"\0headway-{directory}-{time.monotonic_ns()}"
        raylet.bind(name)
        program = program.replace("6379", str(gcs.getsockname()[1]))
        program = program.replace(f"glob.glob({sockets.group(1)!r})[0]", repr(name))
        assert name.encode("unicode_escape").decode() in program

        async def passes() -> bool:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, stderr=asyncio.subprocess.DEVNULL
            )
            return await child.wait() == 0

        assert not await passes()
        raylet.listen()
        assert await passes()
