"""A group lives and dies whole: real processes, real signals."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from worker_process import WorkerProcess, running, wait_gone

from headway.worker.group.errors import EXIT_ENGINE_DEAD
from headway.worker.options import DEMO


@pytest.fixture
def start():
    """Starts workers, and ends what is left of them."""
    workers: list[WorkerProcess] = []

    def start(*arguments: str) -> WorkerProcess:
        workers.append(WorkerProcess(*arguments))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def test_killed_rank_takes_the_group_along(start):
    worker = start("--tp", "2", "--pages", "20").wait_ready()
    os.kill(worker.pids[1], signal.SIGKILL)
    assert worker.process.wait(10) == EXIT_ENGINE_DEAD
    assert not wait_gone(worker.pids, 5)
    log = worker.log.read_text()
    assert f"rank 1 (pid {worker.pids[1]}) died" in log and "most recent call first" in log


def test_stopped_rank_is_found_although_nothing_runs(start):
    worker = start("--pp", "2", "--pages", "20", "--step-timeout", "2").wait_ready()
    os.kill(worker.pids[1], signal.SIGSTOP)
    assert worker.process.wait(30) == EXIT_ENGINE_DEAD
    assert not wait_gone(worker.pids, 5)
    assert "no progress for 2 s" in worker.log.read_text() and "on rank 1" in worker.log.read_text()


def test_followers_go_with_their_leader_and_leave_nothing(start):
    before = shared_memory()
    worker = start("--tp", "2", "--pages", "20").wait_ready()
    os.kill(worker.pids[0], signal.SIGKILL)
    assert not wait_gone(worker.pids, 5)
    assert not {name for name in shared_memory() - before if "headway" in name}


def test_stops_clean(start):
    worker = start("--tp", "2", "--pages", "20").wait_ready()
    assert all(running(pid) for pid in worker.pids)
    assert worker.stop() == 0
    assert not wait_gone(worker.pids, 5)
    assert "Traceback" not in worker.log.read_text()


def test_a_checkpoint_that_cannot_work_is_named(start, tmp_path):
    model = tmp_path / "broken"
    shutil.copytree(DEMO, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": config["hidden_size"] * 2}))
    worker = start("--model", str(model), "--tp", "2")
    assert worker.process.wait(60) == 1
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith("headway worker: ") and "model.safetensors" in last
