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
import xxhash
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
    """Copies between the rows of `host` ([slots, bytes] uint8) and a file of as many bytes a page.

    Of each page a checksum stays in memory: what comes back as something else is told, and is not to be used."""

    def __init__(
        self, directory: Path, pages: int, host: NDArray[np.uint8], report: Callable[[int], None] = lambda word: None
    ) -> None:
        """Makes the file. `report` gets Progress as a word after each job, on the thread that does them. Raises
        ConfigError."""
        self._host = host
        self._size = host.shape[1]
        self._sums = np.zeros(pages, np.uint64)
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
            finished, broken, spoilt = self._progress
            number = finished + 1
            if not broken:
                try:
                    spoilt = spoilt if self._do(job) else self._tell_of(number)
                except Exception:
                    log.exception("the KV tier's file cannot be %s", "written" if job.write else "read")
                    broken = True
            self._progress = Progress(number, broken, spoilt)
            self._report(self._progress.word)

    def _tell_of(self, number: int) -> int:
        if not self._progress.spoilt:
            log.error(
                "the KV tier's file gives back another page than was written to it: such pages are computed again"
            )
        return number

    def _do(self, job: DiskJob) -> bool:
        """Whether the page is what it was."""
        if job.ready is not None:
            job.ready()
        page = self._host[job.slot]
        if job.write:
            self._sums[job.disk_slot] = xxhash.xxh3_64_intdigest(page)
        self._move(os.pwrite if job.write else _pread, memoryview(page), job.disk_slot * self._size)
        return job.write or xxhash.xxh3_64_intdigest(page) == int(self._sums[job.disk_slot])

    def _move(self, move: Callable[[int, memoryview, int], int], row: memoryview, at: int) -> None:
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
