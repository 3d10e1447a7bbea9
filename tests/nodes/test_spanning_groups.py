"""A group whose second stage is on another node: the tokens of one on a single node, and it lives and dies whole.

The other node is another address of the loopback, or a network namespace at the far end of a veth pair, whose link goes
down without a word.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_client import GREEDY, EngineSession, channel_to
from worker_process import WorkerProcess, running, wait_gone

from headway.core.sampling import SamplingParams
from headway.worker.group.errors import EXIT_ENGINE_DEAD

SCRIPT = Path(__file__).parents[1] / "support" / "spanning_worker.py"
OPTIONS = ("--pages", "40", "--step-timeout", "4", "--token-budget", "64", "--dtype", "float32")
LEADER, FIRST, SECOND = range(3)


class Link:
    """A network namespace, and the veth pair that leads there. Gone with the test run."""

    def __init__(self) -> None:
        self.name = f"hw{os.getpid()}"
        net = f"10.213.{os.getpid() % 256}"
        self.own, self.far = f"{net}.1", f"{net}.2"

    def open(self) -> None:
        name = self.name
        for command in (
            f"netns add {name}",
            f"link add {name} type veth peer name far netns {name}",
            f"addr add {self.own}/30 dev {name}",
            f"link set {name} up",
            f"-n {name} addr add {self.far}/30 dev far",
            f"-n {name} link set far up",
            f"-n {name} link set lo up",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)

    def cut(self) -> None:
        """No end of it is told: the far side loses its cable, and what is sent is lost."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "far", "down"], check=True)

    def close(self) -> None:
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    link = Link()
    try:
        link.open()
    except subprocess.CalledProcessError as error:
        link.close()
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    yield link
    link.close()


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[str, WorkerProcess]]:
    """A group for each fate, started all at once, because most of a start is waiting for imports."""
    workers = {"on one node": WorkerProcess("--pp", "2", *OPTIONS)}
    for name in ("stopped", "leader killed", "told to stop"):
        workers[name] = WorkerProcess("127.0.0.1", "127.0.0.2", "-", "--pp", "2", *OPTIONS, entry=[str(SCRIPT)])
    yield workers
    for worker in workers.values():
        worker.close()


@pytest.fixture(scope="module")
def far_groups(link: Link, groups: dict[str, WorkerProcess]) -> Iterator[dict[str, WorkerProcess]]:
    """Their second stage is in the namespace; in one of them it is of two ranks, which share that node's memory."""
    shapes = {"killed": (), "cut off": ("--tp", "2")}
    workers = {
        name: WorkerProcess(link.own, link.far, link.name, "--pp", "2", *shape, *OPTIONS, entry=[str(SCRIPT)])
        for name, shape in shapes.items()
    }
    yield workers
    for worker in workers.values():
        worker.close()


async def tokens_of(worker: WorkerProcess) -> list[list[int]]:
    """Those of six requests at once: long and short, greedy and sampled."""
    if not worker.endpoint:
        worker.wait_ready()
    channel = channel_to(worker.endpoint)
    session = await EngineSession(channel, "test").open()
    samplings = (GREEDY, SamplingParams(temperature=0.9, top_p=0.9, seed=7))
    streams = [
        await session.submit([1 + (at * 7 + length) % 900 for at in range(length)], 16, sampling)
        for length in (3, 40, 150)
        for sampling in samplings
    ]
    async with asyncio.timeout(60):
        for stream in streams:
            await stream.done.wait()
    await session.close()
    await channel.close()
    assert all(len(stream.token_ids) == 16 or stream.last.finish_reason for stream in streams)
    return [stream.token_ids for stream in streams]


def dies_whole(worker: WorkerProcess) -> str:
    """Its log, once the leader has ended as it should and nothing is left."""
    assert worker.process.wait(40) == EXIT_ENGINE_DEAD
    assert not wait_gone(worker.pids, 20)
    return worker.log.read_text()


async def test_the_tokens_are_those_of_one_node(groups):
    expected = await tokens_of(groups["on one node"])
    assert await tokens_of(groups["stopped"]) == expected


async def test_the_tokens_are_those_of_one_node_over_a_real_link(far_groups, groups):
    expected = await tokens_of(groups["on one node"])
    for worker in far_groups.values():
        assert await tokens_of(worker) == expected


def test_a_rank_killed_on_the_other_node_takes_the_group_along(far_groups):
    worker = far_groups["killed"].wait_ready()
    os.kill(worker.pids[SECOND], signal.SIGKILL)
    log = dies_whole(worker)
    assert "the group dies" in log and "rank 1 on far" in log


async def test_a_node_that_is_cut_off_is_found_from_both_sides(far_groups, link):
    worker = far_groups["cut off"].wait_ready()
    link.cut()
    log = dies_whole(worker)
    assert "the group dies" in log and ("on far is gone" in log or "no progress for 4 s" in log)


def test_a_rank_stopped_on_the_other_node_is_found_although_nothing_runs(groups):
    worker = groups["stopped"]
    if not worker.pids:
        worker.wait_ready()
    far = worker.pids[SECOND]
    os.kill(far, signal.SIGSTOP)
    assert worker.process.wait(40) == EXIT_ENGINE_DEAD
    assert not wait_gone([worker.pids[LEADER], worker.pids[FIRST]], 5)
    assert running(far), "nobody but its own node could end it"
    os.kill(far, signal.SIGCONT)
    assert not wait_gone([far], 10), "it sees that its leader is gone"


def test_a_rank_on_the_other_node_ends_when_its_leader_does(groups):
    worker = groups["leader killed"].wait_ready()
    os.kill(worker.pids[LEADER], signal.SIGKILL)
    assert not wait_gone(worker.pids, 10)


def test_stops_clean(groups):
    worker = groups["told to stop"].wait_ready()
    assert worker.stop() == 0
    assert not wait_gone(worker.pids, 5)
    assert "Traceback" not in worker.log.read_text()
