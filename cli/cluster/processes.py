"""Processes by identity, not by number alone: a process id is used again, the moment of a start is not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import psutil

CLUSTER_ID = "HEADWAY_CLUSTER_ID"
POLL_S = 0.05


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """A process: its id, and its start in clock ticks since the machine's own, which no clock setting moves."""

    pid: int
    started: int


def boot_id() -> str:
    """Names this run of the machine: identities of another one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """Who has this id now; None when nobody has, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def alive(process: Identity) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def family(pid: int) -> list[Identity]:
    """The process and all below it."""
    try:
        pids = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []
    return [found for each in pids if (found := identify(each)) is not None]


def marked(cluster_id: str) -> list[Identity]:
    """Processes that were started with this cluster's id in their environment, whoever their parent is now."""
    mark = f"{CLUSTER_ID}={cluster_id}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            process = identify(int(folder.name))
            if mark in environment and process is not None:
                found.append(process)
    return found


def send(processes: Iterable[Identity], number: signal.Signals) -> None:
    """Signals those that still run."""
    for process in processes:
        if alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def wait_gone(
    processes: Iterable[Identity], seconds: float, hurry: Callable[[], bool] = lambda: False
) -> list[Identity]:
    """Waits until all have ended, at most so long, or until `hurry`; returns those that still run."""
    left = list(processes)
    until = time.monotonic() + seconds
    while True:
        left = [process for process in left if alive(process)]
        if not left or hurry() or time.monotonic() >= until:
            return left
        time.sleep(POLL_S)
