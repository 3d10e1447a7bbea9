"""A group lives and dies whole: real processes, real signals."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import grpc
import pytest
from engine_client import EngineSession
from worker_process import WorkerProcess, running, wait_gone

from headway.worker.group.errors import EXIT_ENGINE_DEAD

POOL = ("--pages", "20")
STEP_TIMEOUT_S = 6  # more than a group waits for a core while the others start
SLACK_S = 2.0  # what a slow machine takes to log and to end processes
GROUPS = {
    "rank killed": ("--tp", "2"),
    "rank 0 stopped": ("--pp", "2", "--step-timeout", str(STEP_TIMEOUT_S)),
    "rank 1 stopped": ("--pp", "2", "--step-timeout", str(STEP_TIMEOUT_S)),
    "rank 0 stopped in mid-stream": ("--pp", "2", "--step-timeout", str(STEP_TIMEOUT_S), "--pages", "200"),
    "rank 1 stopped in mid-stream": ("--pp", "2", "--step-timeout", str(STEP_TIMEOUT_S), "--pages", "200"),
    "leader killed": ("--tp", "2"),
    "leader stopped": ("--step-timeout", "3"),
    "told to stop": ("--tp", "2"),
}


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[str, WorkerProcess]]:
    """A group for each fate. They start all at once, because most of a start is waiting for imports."""
    workers = {name: WorkerProcess(*POOL, *shape) for name, shape in GROUPS.items()}
    yield workers
    for worker in workers.values():
        worker.close()


def named_memory(pid: int) -> list[str]:
    """What the process maps or holds open in /dev/shm: only that could stay behind after a SIGKILL."""
    process = Path("/proc") / str(pid)
    mapped = [line.split()[-1] for line in (process / "maps").read_text().splitlines()]
    opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
    return [name for name in mapped + opened if name.startswith("/dev/shm/")]


def test_killed_rank_takes_the_group_along(groups):
    worker = groups["rank killed"].wait_ready()
    _leader, _first, second = worker.pids
    os.kill(second, signal.SIGKILL)
    assert worker.process.wait(10) == EXIT_ENGINE_DEAD
    assert not wait_gone(worker.pids, 5)
    log = worker.log.read_text()
    assert f"rank 1 (pid {second}) died" in log and "most recent call first" in log


def stop_rank(worker: WorkerProcess, rank: int) -> None:
    """Stops it, and sees that it is found within the timeout, and the whole group gone at once."""
    stopped_at = time.time()
    os.kill(worker.pids[1 + rank], signal.SIGSTOP)
    assert worker.process.wait(30) == EXIT_ENGINE_DEAD
    assert not wait_gone(worker.pids, 5)
    gone_at, log = time.time(), worker.log.read_text()
    said = rf"the group dies: no progress for {STEP_TIMEOUT_S} s in step \d+ on rank (.*)$"
    found = re.search(rf"^(\S+ \S+),(\d+) .*{said}", log, re.M)
    assert found is not None and str(rank) in found[3].split(", "), log
    found_at = datetime.fromisoformat(f"{found[1]}.{found[2]}").timestamp()
    assert found_at - stopped_at < STEP_TIMEOUT_S + SLACK_S and gone_at - found_at < SLACK_S


@pytest.mark.parametrize("rank", [0, 1])
def test_stopped_rank_is_found_although_nothing_runs(groups, rank):
    stop_rank(groups[f"rank {rank} stopped"].wait_ready(), rank)


@pytest.mark.parametrize("rank", [0, 1])
async def test_stopped_rank_is_found_while_requests_run(groups, rank):
    worker = groups[f"rank {rank} stopped in mid-stream"].wait_ready()
    async with grpc.aio.insecure_channel(worker.endpoint) as channel:
        session = await EngineSession(channel, "router").open()
        streams = [await session.submit([5, 6, number], 900) for number in range(2)]
        for stream in streams:
            await asyncio.wait_for(stream.started.wait(), 30)
        await asyncio.to_thread(stop_rank, worker, rank)
        assert not any(stream.done.is_set() for stream in streams)
        await session.close()


def test_ranks_go_with_their_leader_and_leave_nothing(groups):
    worker = groups["leader killed"].wait_ready()
    assert [named_memory(pid) for pid in worker.pids] == [[], [], []]
    os.kill(worker.pids[0], signal.SIGKILL)
    assert not wait_gone(worker.pids, 5)


def test_a_stopped_leader_is_killed_by_its_rank(groups):
    worker = groups["leader stopped"].wait_ready()
    os.kill(worker.pids[0], signal.SIGSTOP)
    assert worker.process.wait(30) == -signal.SIGKILL
    assert not wait_gone(worker.pids, 5)
    assert "the leader has sent no plan for 7 s" in worker.log.read_text()


def test_stops_clean(groups):
    worker = groups["told to stop"].wait_ready()
    computes = ["libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text() for pid in worker.pids]
    assert computes == [False, True, True], "the leader holds no tensors"
    assert all(running(pid) for pid in worker.pids)
    assert worker.stop() == 0
    assert not wait_gone(worker.pids, 5)
    assert "Traceback" not in worker.log.read_text()
