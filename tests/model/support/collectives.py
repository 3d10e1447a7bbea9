"""Functions that a test runs on every rank of a group."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psutil
import torch

from headway.worker.parallel.communicator import Communicator, join


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
