"""What every rank's process needs before its first tensor: threads, stack dumps, and ties to its leader."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys

from .errors import EXIT_LEADER_GONE

COLLECTOR_THRESHOLDS = (70_000, 10, 10)

_PR_SET_PDEATHSIG = 1


def limit_threads(device: str) -> None:
    """One compute thread a rank on CPU (HEADWAY_TORCH_THREADS changes it), set before torch is imported.

    Several threads a rank with any busy neighbour make small operations a thousand times slower.
    """
    if device == "cpu" or "HEADWAY_TORCH_THREADS" in os.environ:
        os.environ["OMP_NUM_THREADS"] = os.environ.get("HEADWAY_TORCH_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def spare_collector() -> None:
    """What loading left behind is never looked through again, and new garbage a hundred times more seldom: for the end
    of the warm-up. A collection is a pause of all requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def dump_stacks_on_signal() -> None:
    """SIGUSR1 writes the stacks of all threads to stderr, also when Python's interpreter is stuck."""
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)


def dump_stacks() -> None:
    """Writes the stacks of all threads of this process to stderr."""
    faulthandler.dump_traceback(file=2, all_threads=True)


def die_with_parent(leader_pid: int) -> None:
    """The kernel kills this process when the thread that started it ends. Exits at once if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != leader_pid:
        os._exit(EXIT_LEADER_GONE)
