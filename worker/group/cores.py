"""A core of its own for the thread that computes, where every rank of the group can have one.

Ranks meet twice a layer: one that the kernel moves, or puts behind another on one core, holds up all of them. Cores are
claimed by binding an abstract socket of the core's name, which the kernel frees with the process: groups that know
nothing of each other take different cores, and no crash leaves one taken.

HEADWAY_PIN_CORES=0 turns it off. It is off by itself for ranks of several threads, on a machine that has more to run
than cores (a bound thread cannot go where there is room), and in containers that see all of a machine's cores: their
neighbours would choose the same ones.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

NAME = "headway-core"  # of the claims, with the core's number
_HOST_PIDS = 0xEFFFFFFC  # inode of the first pid namespace (Linux, PROC_PID_INIT_INO)


class Core:
    """A claim, for as long as it is kept."""

    def __init__(self, number: int, claim: socket.socket) -> None:
        self.number = number
        self._claim = claim


def take_core(ranks: int) -> Core | None:
    """Binds the calling thread to a core that no other rank on this machine has; None where that is not to be.

    `ranks` are those of the group on this machine. Threads that the caller starts later inherit its core: start them
    before.
    """
    if os.environ.get("HEADWAY_PIN_CORES") == "0" or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return None
    if sys.platform != "linux" or not _sees_its_neighbours():
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < ranks or os.getloadavg()[0] > (os.cpu_count() or 1):
        return None
    for number in cores:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0{NAME}-{number}")
        except OSError:
            claim.close()
            continue
        os.sched_setaffinity(0, {number})
        return Core(number, claim)
    return None


def _sees_its_neighbours() -> bool:
    """Whether other groups on these cores are in this namespace, too, or these cores are given to nobody else."""
    try:
        on_host = Path("/proc/self/ns/pid").stat().st_ino == _HOST_PIDS
    except OSError:
        on_host = False
    return on_host or len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)
