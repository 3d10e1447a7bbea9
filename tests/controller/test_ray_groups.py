"""The controller's own process with Ray, Serve and real worker groups."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.clusters import descendants, left_behind
from support.controller_process import ControllerProcess

from headway.cli.cluster.admin import admin_stub
from headway.proto.headway.v1 import admin_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerProcess]:
    """One group of two ranks, and devices for one more."""
    log = tmp_path_factory.mktemp("logs") / "controller.log"
    made = ControllerProcess(log, "--tp", "2", "--replicas", "1", "--cpu-devices", "4", "--page-size", "32")
    made.until(lambda replicas: [r.state for r in replicas.values()] == ["READY"])
    yield made
    if made.process.poll() is None:
        made.stop()


def test_everything_listens_on_loopback_only(controller: ControllerProcess) -> None:
    listeners = [
        connection.laddr.ip
        for pid in (controller.process.pid, *descendants(controller.process.pid))
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listeners) > 3
    assert set(listeners) <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("process", [2, 1, 0], ids=["rank 1", "rank 0", "leader"])
def test_a_killed_process_brings_the_whole_group_back(controller: ControllerProcess, process: int) -> None:
    (before,) = controller.replicas().values()
    os.kill(before.pids[process], signal.SIGKILL)
    (after,) = controller.until(
        lambda replicas: all(r.state == "READY" and r.incarnation != before.incarnation for r in replicas.values())
    ).values()
    assert after.restarts == before.restarts + 1
    assert not set(after.pids) & set(before.pids)
    assert left_behind(before.pids) == []


def test_what_does_not_fit_is_pending_with_the_reason(controller: ControllerProcess) -> None:
    with admin_stub(controller.address) as stub:
        stub.ScaleModel(admin_pb2.ScaleModelRequest(model="demo", replicas=3))
        replicas = controller.until(lambda replicas: any("0 of 4 are free" in r.reason for r in replicas.values()))
        assert sum(r.state == "PENDING" and "waits for 2 devices" in r.reason for r in replicas.values()) == 1
        stub.ScaleModel(admin_pb2.ScaleModelRequest(model="demo", replicas=1))
    controller.until(lambda replicas: [r.state for r in replicas.values()] == ["READY"])


def test_its_end_is_the_end_of_everything(controller: ControllerProcess) -> None:
    family = descendants(controller.process.pid)
    folders = {
        Path(argument.partition("=")[2]).parent
        for pid in family
        for argument in psutil.Process(pid).cmdline()
        if argument.startswith("--session-dir=")
    }
    assert controller.stop() == 0
    assert left_behind(family) == []
    assert [folder for folder in folders if folder.exists()] == []


def test_a_bad_checkpoint_is_stopped_with_its_reason(tmp_path: Path) -> None:
    from headway.demo import DEMO_DIR

    model = tmp_path / "broken"
    model.mkdir()
    for path in DEMO_DIR.iterdir():
        if path.name != "config.json":
            (model / path.name).symlink_to(path)
    config = json.loads((DEMO_DIR / "config.json").read_text())
    layers = config["num_hidden_layers"]
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers + 1}))
    controller = ControllerProcess(tmp_path / "controller.log", "--model", str(model))
    try:
        (replica,) = controller.until(
            lambda replicas: all(r.state == "STOPPED" for r in replicas.values()) and replicas
        ).values()
        assert f"layers.{layers}." in replica.reason
    finally:
        controller.stop()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "/nowhere"), "/nowhere"),
        (("--tp", "0"), "tp"),
        (("--tp", "3"), "tp can be 1, 2"),
        (("--page-size", "12"), "page_size"),
        (("--model-name", "a b"), "'a b'"),
    ],
)
async def test_what_cannot_be_ends_before_ray_starts(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    command = [sys.executable, "-m", "headway.controller", "--announce", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert words in json.loads(done.stdout)["message"]
    assert words in done.stderr
    assert "Traceback" not in done.stderr
