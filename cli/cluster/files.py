"""The files of a running cluster below HEADWAY_HOME.

`cluster.json` is for users: addresses, replicas, processes; it exists while the cluster serves. `supervisor.json` is
for `down`: what must be gone in the end; it exists from the first process on, and outlives a supervisor that was
killed. The supervisor holds a lock on `lock` as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from ..target import home
from .processes import Identity

T = TypeVar("T")


class ReplicaEntry(msgspec.Struct, kw_only=True):
    """One replica in the document; `pids`: the leader's, then the ranks'."""

    id: str
    model: str
    tp: int
    pp: int
    pids: list[int]


class ClusterDocument(msgspec.Struct, kw_only=True):
    """What `up --json` prints and `cluster.json` holds. `pids` are all processes of the cluster."""

    grpc: str
    http: str
    admin: str
    admin_grpc: str
    replicas: list[ReplicaEntry]
    pids: list[int]
    logs: str


class Record(msgspec.Struct, kw_only=True):
    """What must be gone when the cluster is down. `cluster_id` is in the environment of each of its processes."""

    cluster_id: str
    boot_id: str
    supervisor: Identity
    processes: list[Identity]
    temp_dir: str


class Files:
    """Where they lie, and how they are written: whole or not at all."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home()
        self.cluster = self.root / "cluster.json"
        self.record = self.root / "supervisor.json"
        self.lock = self.root / "lock"
        self.logs = self.root / "logs"

    def make(self) -> None:
        """The folders. Raises OSError."""
        self.logs.mkdir(parents=True, exist_ok=True)

    def read_cluster(self) -> ClusterDocument | None:
        return _read(self.cluster, ClusterDocument)

    def read_record(self) -> Record | None:
        return _read(self.record, Record)

    def write(self, path: Path, value: ClusterDocument | Record) -> None:
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(value)))
        fresh.replace(path)

    def remove(self) -> None:
        """Strikes the cluster off."""
        for path in (self.cluster, self.record):
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Holds the lock while inside; False when another supervisor does."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
