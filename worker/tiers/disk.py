"""One rank's disk tier: a file of pages, and the thread that reads and writes it behind the steps."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ConfigError
from .progress import Progress

log = logging.getLogger(__name__)


class DiskJob(NamedTuple):
    """`ready` returns when the copies that the step before began are through."""

    write: bool
    slot: int
    disk_slot: int
    ready: Callable[[], None] | None = None


class DiskTier:
    """Copies between the rows of `host` ([slots, bytes] uint8) and a file of as many bytes a page."""

    def __init__(
        self, directory: Path, pages: int, host: NDArray[np.uint8], report: Callable[[int], None] = lambda word: None
    ) -> None:
        """Makes the file. `report` gets Progress as a word after each job, on the thread that does them. Raises
        ConfigError."""
        self._host = host
        self._size = host.shape[1]
        self._report = report
        self._progress = Progress(0, False)
        self._jobs: SimpleQueue[DiskJob | None] = SimpleQueue()
        try:
            self._file = _nameless_file(directory)
            os.ftruncate(self._file, pages * self._size)
        except OSError as error:
            raise ConfigError(f"kv_disk: no file of {pages} pages can be made in {directory}: {error}") from None
        self._thread = threading.Thread(target=self._work, name="headway-kv-disk", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """How far this rank is."""
        return self._progress

    def put(self, job: DiskJob) -> None:
        """Queues a job; jobs are done in order."""
        self._jobs.put(job)

    def close(self) -> None:
        """Ends the thread after the jobs that are queued; the file's space is free from then on."""
        self._jobs.put(None)
        self._thread.join()
        os.close(self._file)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            broken = self._progress.broken
            if not broken:
                try:
                    self._do(job)
                except Exception:
                    log.exception("the KV tier's file cannot be %s", "written" if job.write else "read")
                    broken = True
            self._progress = Progress(self._progress.finished + 1, broken)
            self._report(self._progress.word)

    def _do(self, job: DiskJob) -> None:
        if job.ready is not None:
            job.ready()
        row, at = memoryview(self._host[job.slot]), job.disk_slot * self._size
        move = os.pwrite if job.write else _pread
        while row:
            count = move(self._file, row, at)
            if not count:
                raise OSError(errno.EIO, "the file ends")
            row, at = row[count:], at + count


def _pread(file: int, row: memoryview, at: int) -> int:
    return os.preadv(file, [row], at)


def _nameless_file(directory: Path) -> int:
    """A file without a name: it is gone with the process, however that ends."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    # A file system that knows no nameless files.
    file, name = tempfile.mkstemp(prefix="headway-kv-", dir=directory)
    Path(name).unlink()
    return file
