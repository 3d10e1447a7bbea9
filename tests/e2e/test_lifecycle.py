"""`headway up` and `headway down` as a user meets them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from support.clusters import HEADWAY, descendants, left_behind, shared_memory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def serves(address: str) -> bool:
    try:
        httpx.get(f"{address}/health", timeout=1)
    except httpx.TransportError:
        return False
    return True


def test_down_leaves_nothing(new_cluster) -> None:
    shared_before = shared_memory()
    cluster = new_cluster("--replicas", "1", "--tp", "2", "--pp", "2")
    (replica,) = cluster.document["replicas"]
    assert (replica["tp"], replica["pp"], len(set(replica["pids"]))) == (2, 2, 5)
    cluster.run("generate", "def __init__(self, ", "--max-tokens", "4")
    # Every process below the supervisor, whether the document names it or not.
    family = {pid for named in cluster.all_pids() for pid in (named, *descendants(named))}
    cluster.run("down")
    assert left_behind(sorted(family)) == []
    assert shared_memory() - shared_before == set()
    assert not serves(cluster.document["http"])
    assert not serves(cluster.document["admin"])
    assert cluster.run("status", check=False).returncode != 0
    assert cluster.run("down", check=False).returncode == 0


def test_a_second_up_is_refused_and_harms_nothing(cluster) -> None:
    second = cluster.run("up", "--detach", "--json", "--port", "0", check=False)
    assert second.returncode != 0
    assert "down" in second.stderr
    assert cluster.status()["pids"]


def test_a_taken_port_is_refused_by_name(cluster, tmp_path: Path) -> None:
    port = cluster.document["http"].rsplit(":", 1)[1]
    environment = {**cluster.environment, "HEADWAY_HOME": str(tmp_path)}
    command = [str(HEADWAY), "up", "--detach", "--json", "--port", port]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert port in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_foreground_takes_everything_down(tmp_path: Path, signal_number: int) -> None:
    environment = {**os.environ, "HEADWAY_HOME": str(tmp_path)}
    shared_before = shared_memory()
    command = [str(HEADWAY), "up", "--port", "0", "--replicas", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        document = tmp_path / "cluster.json"
        until = time.monotonic() + 200
        while not document.exists():
            assert up.poll() is None and time.monotonic() < until, up.stdout.read() if up.poll() is not None else ""
            time.sleep(0.2)
        family = descendants(up.pid)
        assert len(family) > 3
        up.send_signal(signal_number)
        output, _ = up.communicate(timeout=60)
    assert "Traceback" not in output, output
    assert left_behind(family) == []
    assert not document.exists()
    assert shared_memory() - shared_before == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "/nowhere"), ["/nowhere"]),
        (("--tp", "3"), ["tp = 3", "tp can be 1, 2"]),
        (("--tp", "0"), ["tp"]),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, arguments: tuple[str, ...], words: list[str]) -> None:
    environment = {**os.environ, "HEADWAY_HOME": str(tmp_path)}
    command = [str(HEADWAY), "up", "--detach", "--json", "--port", "0", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cluster.json").exists()


def test_scaling_up_and_rolling_back(new_cluster) -> None:
    cluster = new_cluster("--replicas", "1")
    cluster.run("scale", "2")
    cluster.wait_for(lambda status: [r["state"] for r in status["replicas"]] == ["READY", "READY"])
    down = json.loads(cluster.run("scale", "1", "--dry-run", "--json").stdout)["steps"]
    back = json.loads(cluster.run("rollback", "--reason", "no need", "--json").stdout)["steps"]
    assert back == ["set demo back to revision 1: 1 replica", *down]
    status = cluster.wait_for(lambda status: len(status["replicas"]) == 1)
    assert json.loads(cluster.run("generate", "import os", "--json", "--max-tokens", "2").stdout)["text"] is not None
    assert status["replicas"][0]["state"] in ("READY", "DRAINING")
    history = json.loads(cluster.run("rollback", "--list", "--json").stdout)["revisions"]
    assert [(each["revision"], each["settings"]["desired_replicas"]) for each in history] == [(3, 1), (2, 2), (1, 1)]
    assert [line.split()[0] for line in cluster.run("rollback", "--list").stdout.splitlines()] == ["REVISION", *"321"]
    assert cluster.run("rollback", "--to", "3").stdout == "nothing to do\n"
    cluster.run("down")
