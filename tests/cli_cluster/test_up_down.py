"""The verbs by real processes, beyond what tests/e2e/test_lifecycle.py does with a whole cluster."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from support.clusters import HEADWAY, Cluster, descendants, left_behind, shared_memory

from headway.cli.cluster.display import print_summary
from headway.cli.cluster.files import Files
from headway.demo import DEMO_DIR

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def one(tmp_path: Path):
    """One replica of one rank."""
    cluster = Cluster(tmp_path / "home")
    cluster.run("up", "--detach", "--json", "--port", "0", "--replicas", "1", timeout=200)
    cluster.document = cluster.status()
    yield cluster
    cluster.run("down", check=False)


def left_folders(family: list[int]) -> list[str]:
    return [
        argument.partition("=")[2]
        for pid in family
        for argument in psutil.Process(pid).cmdline()
        if argument.startswith("--session-dir=")
    ]


def test_verbs_without_a_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home")
    for verb in (("status",), ("status", "--json"), ("scale", "2"), ("drain", "demo-0"), ("rollback",)):
        done = cluster.run(*verb, check=False)
        assert done.returncode == 1
        assert "no cluster runs here" in done.stderr
        assert "headway up" in done.stderr
        assert done.stdout == ""
    assert cluster.run("down").returncode == 0


def test_a_killed_supervisor_leaves_nothing(one: Cluster, tmp_path: Path) -> None:
    shared_before = shared_memory()
    document = json.loads((tmp_path / "home" / "cluster.json").read_text())
    assert document["pids"] == one.document["pids"]
    supervisor = json.loads((tmp_path / "home" / "supervisor.json").read_text())["supervisor"][0]
    family = [supervisor, *descendants(supervisor)]
    assert set(document["replicas"][0]["pids"]) <= set(family) == set(document["pids"])
    folders = left_folders(family)
    assert folders
    os.kill(supervisor, signal.SIGKILL)
    until = time.monotonic() + 30
    while left_behind(family) or (tmp_path / "home" / "cluster.json").exists():
        assert time.monotonic() < until, left_behind(family)
        time.sleep(0.1)
    assert [folder for folder in folders if Path(folder).exists()] == []
    assert shared_memory() <= shared_before
    assert one.run("status", check=False).returncode == 1
    assert one.run("down").returncode == 0


def paste(line: str) -> str:
    """What a line prints in a terminal where nobody has activated the environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_to_paste_and_the_verbs(
    one: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Files(tmp_path / "home").read_cluster()
    assert document is not None
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    print_summary(document, "")
    lines = capsys.readouterr().out.splitlines()
    text = paste(next(line for line in lines if " generate " in line)).removesuffix("\n")
    assert text
    answer = json.loads(paste(next(line for line in lines if " curl " in line)))
    assert answer["choices"][0]["text"] == text

    dry = json.loads(one.run("scale", "3", "--dry-run", "--json").stdout)
    assert dry["steps"] == ["start 2 replicas of demo"]
    refusal = one.run("drain", "demo-7", check=False)
    assert refusal.returncode == 1
    assert "demo-7" in refusal.stderr
    assert "demo-0" in refusal.stderr
    for arguments, word in ((("--to", "7"), "kept: 1 to 1"), ((), "only one"), (("--list", "--to", "1"), "--list")):
        refusal = one.run("rollback", *arguments, check=False)
        assert (refusal.returncode, refusal.stdout) == (1, "")
        assert word in refusal.stderr
    assert one.run("scale", "2", "--model", "nope", check=False).returncode == 1
    assert "READY" in one.run("status").stdout
    assert httpx.get(one.document["admin"]).status_code == 200
    assert len(one.status()["replicas"]) == 1


def test_a_dead_router_ends_the_cluster_with_a_message(tmp_path: Path) -> None:
    environment = {**os.environ, "HEADWAY_HOME": str(tmp_path)}
    command = [str(HEADWAY), "up", "--port", "0", "--replicas", "1", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        until = time.monotonic() + 200
        while not (tmp_path / "cluster.json").exists():
            assert up.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        family = descendants(up.pid)
        router = next(pid for pid in family if "headway.router" in psutil.Process(pid).cmdline())
        os.kill(router, signal.SIGKILL)
        output, errors = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "the router was killed by SIGKILL" in errors
    assert "Traceback" not in errors
    assert json.loads(output)["replicas"][0]["id"] == "demo-0"
    assert left_behind(family) == []
    assert not (tmp_path / "cluster.json").exists()


@pytest.mark.parametrize("terminal", ["terminal", "broken terminal"])
def test_a_start_ends_at_once(tmp_path: Path, terminal: str) -> None:
    """A controller that starts Ray hears nothing; who gives up then does not wait for it, nor loses it."""
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, terminal], env={**os.environ, "HEADWAY_HOME": str(tmp_path)}
    ) as up:
        try:
            until = time.monotonic() + 60
            while not (children := [each for each in descendants(up.pid) if is_controller(each)]):
                assert up.poll() is None and time.monotonic() < until
                time.sleep(0.05)
            family = descendants(up.pid)
            os.kill(children[0], signal.SIGSTOP)
            up.send_signal(signal.SIGINT)
            assert up.wait(60) == 128 + signal.SIGINT
        finally:
            up.kill()
    assert left_behind(family) == []
    assert not (tmp_path / "supervisor.json").exists()


# A supervisor that would wait for ever, were it to wait at all; of a broken terminal nobody reads.
IMPATIENT = """
import sys
from headway.cli.cluster import supervisor
from headway.cli.cluster.options import resolve

supervisor.STOP_S = {"router": 1000.0, "controller": 1000.0}

def tell(event):
    if sys.argv[1] == "broken terminal" and event == supervisor.STOPPING:
        raise OSError("Input/output error")

options = resolve(
    model="demo", model_name="", replicas=1, tp=1, pp=1, device="cpu", port=0, engine=()
)
sys.exit(supervisor.Supervisor(options, tell).run())
"""


def is_controller(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "headway.controller" in psutil.Process(pid).cmdline()
    return False


def test_a_worker_that_cannot_start_says_which_tensor(tmp_path: Path) -> None:
    model = tmp_path / "broken"
    model.mkdir()
    for path in DEMO_DIR.iterdir():
        (model / path.name).symlink_to(path)
    config = json.loads((DEMO_DIR / "config.json").read_text())
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    cluster = Cluster(tmp_path / "home")
    done = cluster.run("up", "--detach", "--port", "0", "--model", str(model), timeout=200, check=False)
    assert done.returncode == 1
    assert f"layers.{config['num_hidden_layers']}." in done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.run("status", check=False).returncode == 1


def test_help_is_quick_and_knows_the_verbs(tmp_path: Path) -> None:
    done = Cluster(tmp_path).run("--help")
    for verb in ("up", "down", "status", "scale", "drain", "rollback"):
        assert f" {verb} " in done.stdout
