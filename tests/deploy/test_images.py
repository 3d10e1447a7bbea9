"""What of the images can be known without building them."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from headway.controller.controller import Controller
from headway.controller.http import build_app
from headway.controller.serve_apps import ServeSupervisor
from headway.controller.settings import parse
from headway.controller.state import MemoryStore
from headway.tests.deploy.dockerfile import copied, stages

ROOT = Path(__file__).resolve().parents[2]
IMAGES = sorted((ROOT / "deploy" / "images").glob("*.Dockerfile"))
HEADWAY = ROOT / "deploy" / "images" / "headway.Dockerfile"
ROUTER = ROOT / "deploy" / "images" / "router.Dockerfile"

each_image = pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)


def test_both_images_are_here() -> None:
    assert IMAGES == [HEADWAY, ROUTER]


@each_image
def test_bases_have_a_tag_that_names_a_version(path: Path) -> None:
    for stage in stages(path):
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", stage.base), stage.base


@each_image
def test_runs_as_a_user_of_its_own(path: Path) -> None:
    final = stages(path)[-1]
    user = final.last("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "Kubernetes' runAsNonRoot needs numbers"
    assert any(f"--uid {user.split(':')[0]} " in run for run in final.all("RUN"))
    order = [name for name, _ in final.instructions]
    assert "RUN" not in order[order.index("USER") :]


@each_image
def test_each_copy_finds_its_source_in_the_context(path: Path) -> None:
    ignored = [line for line in _lines(path.with_name(f"{path.name}.dockerignore")) if not line.startswith("#")]
    for stage in stages(path):
        for source in copied(stage):
            assert (ROOT / source).exists(), source
            assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), source


@each_image
def test_stages_that_are_copied_from_exist(path: Path) -> None:
    names = {stage.name for stage in stages(path)}
    text = path.read_text()
    assert set(re.findall(r"(?:--from=|from=)(\w+)", text)) <= names


@each_image
def test_no_checkout_of_this_machine_gets_in(path: Path) -> None:
    ignored = _lines(path.with_name(f"{path.name}.dockerignore"))
    assert {".git", ".venv*", "**/node_modules", "controller/dashboard/static"} <= set(ignored)


def test_the_wheel_gets_what_it_is_built_from() -> None:
    """setup.py and pyproject.toml name folders and files; an ignore file must not hide one."""
    for path in IMAGES:
        ignored = _lines(path.with_name(f"{path.name}.dockerignore"))
        for needed in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "py.typed", "demo", "proto", "router"):
            assert (ROOT / needed).exists()
            assert needed not in ignored


def test_the_controller_takes_the_image_s_command() -> None:
    command = stages(HEADWAY)[-1].command
    assert command[:3] == ["python", "-m", "headway.controller"]
    settings = parse(command[3:])
    exposed = {int(port) for port in stages(HEADWAY)[-1].last("EXPOSE").split()}
    assert (settings.host, {settings.http_port, settings.grpc_port}) == ("0.0.0.0", exposed)


def test_the_controller_answers_the_image_s_health_check() -> None:
    final = stages(HEADWAY)[-1]
    port, path = _asked(final.health_command)
    assert port == parse(final.command[3:]).http_port
    controller = Controller(MemoryStore(None), ServeSupervisor())
    for serving, status in ((True, 200), (False, 503)):
        app = build_app(controller, lambda serving=serving: serving, frozenset())  # type: ignore[misc]
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.get(path).status_code == status


async def test_the_router_starts_by_the_image_s_command_and_answers_its_health_check() -> None:
    """The real program on other ports, and the health check's own code against it."""
    final = stages(ROUTER)[-1]
    asked, _ = _asked(final.health_command)
    ports = {port: str(_free_port()) for port in final.last("EXPOSE").split()}
    assert str(asked) in ports
    command = [ports.get(word, word).replace("0.0.0.0", "127.0.0.1") for word in final.command]
    command[0] = sys.executable
    router = await asyncio.create_subprocess_exec(*command, "--controller=127.0.0.1:1", "--grace=1")
    check = [word.replace(f":{asked}/", f":{ports[str(asked)]}/") for word in final.health_command]
    check[0] = sys.executable
    try:
        async with asyncio.timeout(60):
            while await (await asyncio.create_subprocess_exec(*check, stderr=subprocess.DEVNULL)).wait() != 0:
                assert router.returncode is None
                await asyncio.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            router.terminate()
        async with asyncio.timeout(30):
            assert await router.wait() == 0


def _asked(health: list[str]) -> tuple[int, str]:
    """Port and path that a health check's code asks for."""
    found = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", health[-1])
    assert found
    return int(found[1]), found[2]


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
