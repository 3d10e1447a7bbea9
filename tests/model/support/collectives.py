"""Functions that a test runs on every rank of a group."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from unittest.mock import patch

import psutil
import torch
import torch.distributed as dist

from headway.worker.parallel import nccl, symmetric
from headway.worker.parallel.communicator import Communicator, join
from headway.worker.parallel.tensor_group import DistributedGroup


def own_numbers(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """What rank contributes: any rank can work out everybody's."""
    return torch.randn(count, generator=torch.Generator().manual_seed(rank * 7919 + count)).to(dtype)


@dataclass(frozen=True)
class Sums:
    """All-reduce of every size; returns the bytes of each sum."""

    counts: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self, comm: Communicator) -> list[bytes]:
        sums = []
        for count in self.counts:
            x = comm.all_reduce(own_numbers(comm.place.tp_rank, count, self.dtype))
            sums.append(x.view(torch.uint8).numpy().tobytes())
        return sums


@dataclass(frozen=True)
class Gathers:
    """Gather of [3, width] of every width; returns lists on tp rank 0."""

    widths: tuple[int, ...]

    def __call__(self, comm: Communicator) -> list[torch.Tensor | None]:
        return [
            comm.gather(own_numbers(comm.place.tp_rank, 3 * width, torch.float32).view(3, width))
            for width in self.widths
        ]


def many_sums_with_uneven_speed(comm: Communicator) -> list[float]:
    """Ranks that overtake one another must not see each other's later numbers."""
    totals = []
    for turn in range(400):
        if turn % 50 == comm.place.tp_rank:
            time.sleep(0.003)
        totals.append(float(comm.all_reduce(torch.full((5,), float(turn * (comm.place.tp_rank + 1))))[0]))
    return totals


def memory_names(comm: Communicator) -> list[str]:
    """Shared mappings of this process that have a name in a directory of shared memory."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        return [line.split()[-1] for line in maps if "/dev/shm/" in line]


def listening_addresses(comm: Communicator) -> list[str]:
    """Addresses on which this process takes connections."""
    sockets = psutil.Process().net_connections(kind="inet")
    return [connection.laddr.ip for connection in sockets if connection.status == psutil.CONN_LISTEN]


def transport(comm: Communicator) -> str:
    """How the ranks of a stage sum."""
    return comm.transport


def die_or_wait(rank: int, rendezvous: str, pipe: Connection) -> None:
    """Entry point of two ranks, of which the second dies; the first tells what it sees of that, and after how long."""
    comm = join(rank, 2, 1, "cpu", rendezvous, 20.0)
    comm.all_reduce(torch.ones(4))
    comm._group.timeout_s = 1.0  # type: ignore[attr-defined]
    pipe.send(_wait_for_the_dead(comm))
    comm.close()


def _wait_for_the_dead(comm: Communicator) -> str:
    if comm.place.rank == 1:
        os._exit(9)
    start = time.monotonic()
    try:
        comm.all_reduce(torch.ones(4))
    except Exception as error:
        return f"{type(error).__name__} after {time.monotonic() - start:.1f} s: {error}"
    return "no error"


def without_symmetric_memory(comm: Communicator) -> tuple[str, list[float]]:
    """What comes of asking for it over gloo: the kind of group, and a sum by it."""
    group = _over_gloo(comm)
    found = symmetric.with_symmetric_memory(group, comm.device)
    return type(found).__name__, found.all_reduce(torch.tensor([1.0 + comm.place.rank])).tolist()


def with_symmetric_memory_on_one_rank(comm: Communicator) -> str:
    """The kind of group where rank 1 cannot."""
    group = _over_gloo(comm)
    if comm.place.rank == 1:
        return type(symmetric.with_symmetric_memory(group, comm.device)).__name__
    with _pretended_symmetric_memory(group.group):
        return type(symmetric.with_symmetric_memory(group, comm.device)).__name__


def sums_in_one_shot(comm: Communicator) -> tuple[str, int, list[tuple[bool, bool]]]:
    """The kind of group where memory is pretended to be shared, the number of sums that went by it, and of each sum
    whether it is right and in place."""
    group = _over_gloo(comm)
    checks = []
    with _pretended_symmetric_memory(group.group) as shots:
        found = symmetric.with_symmetric_memory(group, comm.device)
        for count, dtype in (
            (8, torch.float32), (4, torch.bfloat16), (64, torch.bfloat16), (3, torch.float32), (4, torch.float64),
            (symmetric.MOST_BYTES // 4, torch.float32), (symmetric.MOST_BYTES // 4 + 4, torch.float32),
        ):  # fmt: skip
            x = (torch.arange(count) % 50).to(dtype).view(-1, 1)
            total = found.all_reduce(x)
            checks.append((torch.equal(total, ((torch.arange(count) % 50) * 2).to(dtype).view(-1, 1)), total is x))
    return type(found).__name__, len(shots), checks


def settled_timeouts(comm: Communicator) -> list[float]:
    """Seconds that the groups grant an operation once they have settled for steps of 45 s; then as before."""
    before = dist.group.WORLD._get_backend(comm.device).options._timeout
    nccl.settle(45.0)
    groups = list(dist.distributed_c10d._world.pg_map)
    found = [group._get_backend(comm.device).options._timeout.total_seconds() for group in groups]
    for group in groups:
        dist.distributed_c10d._set_pg_timeout(before, group)
    return found


def _over_gloo(comm: Communicator) -> DistributedGroup:
    return DistributedGroup(dist.new_group([0, 1]), 0, 2, comm.place.rank)


@contextmanager
def _pretended_symmetric_memory(group: dist.ProcessGroup) -> Iterator[list[int]]:
    """Ordinary memory, and gloo's sum in place of the one-shot operation."""
    shots = []

    def one_shot(mine: torch.Tensor, name: str, out: torch.Tensor) -> None:
        assert name == group.group_name and mine.shape == out.shape and mine.data_ptr() != out.data_ptr()
        shots.append(len(mine))
        out.copy_(mine)
        dist.all_reduce(out, group=group)

    def empty(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.full((count,), torch.nan, dtype=dtype, device=device)

    with (
        patch.object(symmetric, "_one_shot", one_shot),
        patch("torch.distributed._symmetric_memory.empty", empty),
        patch("torch.distributed._symmetric_memory.rendezvous", lambda tensor, name: None),
    ):
        yield shots
