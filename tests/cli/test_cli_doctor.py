"""`headway doctor`: true findings, advice beside each that is not ok, and an exit code for scripts."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headway.cli import checks, target
from headway.cli.checks import Finding, Verdict, cluster, machine, software
from headway.cli.commands import doctor

if TYPE_CHECKING:
    from headway.tests.cli.conftest import Command


def test_json_holds_every_check(headway: Command) -> None:
    done = headway("doctor", "--json")
    document = json.loads(done.stdout)
    assert [check["name"] for check in document["checks"]] == [
        "python",
        "packages",
        "torch",
        "cpu operations",
        "attention",
        "cores",
        "memory",
        "shared memory",
        "disk",
        "open files",
        "proxy",
        "ports",
        "cluster",
        "redis",
        "browser",
    ]
    verdicts = {check["verdict"] for check in document["checks"]}
    assert verdicts <= {"ok", "warn", "fail"} and document["ok"] == ("fail" not in verdicts)
    assert done.returncode == (0 if document["ok"] else 1)
    for check in document["checks"]:
        assert check["detail"] and bool(check["next"]) == (check["verdict"] != "ok"), check
    assert "scripted (2 ready)" in next(check["detail"] for check in document["checks"] if check["name"] == "cluster")


def test_a_dead_cluster_fails_with_advice(headway: Command) -> None:
    headway.write_cluster('{"grpc": "127.0.0.1:1"}')
    done = headway("doctor")
    assert done.returncode == 1
    assert "fail cluster" in done.stdout and "headway down" in done.stdout


@pytest.fixture
def home(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))


@pytest.mark.usefixtures("home")
def test_ports_held_by_others_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(cluster, "PORTS", (port,))
        finding = cluster.ports()
        assert finding.verdict is Verdict.WARN and str(port) in finding.detail and "--port" in finding.next
        (target.home() / "cluster.json").write_text(f'{{"grpc": "127.0.0.1:1", "http": "http://127.0.0.1:{port}"}}')
        assert cluster.ports().verdict is Verdict.OK
    assert cluster.ports().verdict is Verdict.OK


@pytest.mark.usefixtures("home")
def test_no_cluster_is_fine_and_a_broken_document_is_not() -> None:
    assert cluster.running().verdict is Verdict.OK
    (target.home() / "cluster.json").write_text("{")
    assert cluster.running().verdict is Verdict.FAIL


def test_missing_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["grpcio>=9999", "no-such-package-of-ours>=1", "pytest>=1", "triton>=3.6; extra == 'gpu'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    finding = software.packages()
    assert finding.verdict is Verdict.FAIL
    assert "grpcio is " in finding.detail and "must be >=9999" in finding.detail
    assert "no-such-package-of-ours is missing" in finding.detail
    assert "pytest" not in finding.detail and "triton" not in finding.detail


def test_a_program_that_is_absent_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert software.redis_server().verdict is software.browser().verdict is Verdict.WARN


def test_whose_attention_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "neither FlashInfer nor FlashAttention" in software.attention().detail
    (tmp_path / "flashinfer.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert software.attention().detail == "FlashInfer installed; a replica's start on a GPU measures them"
    verdict = {"winner": "flashinfer", "milliseconds": {"headway": 0.5, "flashinfer": 0.25}, "refused": {}}
    (tmp_path / "headway").mkdir()
    (tmp_path / "headway" / "attention.json").write_text(json.dumps({"a device": {"decode": verdict}}))
    found = software.attention()
    assert found.verdict is Verdict.OK
    assert found.detail == "decode by flashinfer (headway 0.500 ms; flashinfer 0.250 ms) on a device"


def test_too_many_openmp_threads_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr(machine, "_cpu_quota", lambda: 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine.cores().verdict is Verdict.OK and "limited to 2.0" in machine.cores().detail
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.cores().verdict is Verdict.WARN and "at most 2" in machine.cores().next


@pytest.mark.parametrize(("free", "verdict"), [(2**22, "fail"), (2**26, "warn"), (2**31, "ok")])
def test_shared_memory_by_size(monkeypatch: pytest.MonkeyPatch, free: int, verdict: str) -> None:
    usage = shutil.disk_usage("/")._replace(total=2**31, used=2**31 - free, free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert machine.shared_memory().verdict == verdict


def test_a_check_that_breaks_is_a_finding_itself() -> None:
    def broken() -> Finding:
        raise RuntimeError("boom")

    finding = doctor.run(broken)
    assert finding.verdict is checks.Verdict.FAIL and "boom" in finding.detail
