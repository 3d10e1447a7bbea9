"""The leader's side of the tiers below the device: which page goes where, and when.

A page that gives way on the device is copied to a host slot in the same step, before the page is written anew; it comes
back by a copy the other way when a request enters with it, and its host copy stays, so that the next time it gives way
costs nothing. Once the host's slots are half full the oldest pages go to disk behind the steps, so that a host slot can
be taken at once when it is needed. A page on disk is read into a host slot ahead of time: the request that wants it
waits, and others run. What falls off anywhere was only a copy of what can be computed again.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.blocks import BlockKey
from ..pages.entry import Entry, Place
from ..pages.events import KvEvents, Medium
from ..plan import PageMoves
from .progress import Progress
from .shelf import Shelf

log = logging.getLogger(__name__)

MAX_WRITES = 256  # jobs that wait at the disk before more pages are sent there
STALL_S = 10.0  # a disk that finishes nothing for longer is given up
WAIT_S = 0.005
POLL_S = 0.0005


class TierFigures(NamedTuple):
    """Counters are in pages, since the start."""

    host_used: int = 0
    host_total: int = 0
    disk_used: int = 0
    disk_total: int = 0
    host_hits: int = 0
    disk_hits: int = 0
    spilled: int = 0
    fetched: int = 0
    written: int = 0
    read: int = 0


class _Job(NamedTuple):
    """A copy between a host slot and a disk slot that the ranks have been told of."""

    number: int
    write: bool
    slot: int
    disk_slot: int
    entry: Entry


class Tiers:
    """Host slots, and disk slots if there is a disk. Not thread-safe: the engine's loop owns it.

    Disk jobs are numbered from 1 on; every rank works them off in that order, and `progress` tells how far all are.
    """

    def __init__(
        self, host_pages: int, disk_pages: int = 0, progress: Callable[[], Progress] = lambda: Progress(0, False)
    ) -> None:
        self.events = KvEvents()
        self.host = Shelf(host_pages, Medium.HOST, self.events)
        self.disk = Shelf(disk_pages, Medium.DISK, self.events)
        self.broken = disk_pages == 0
        self._progress = progress
        self._spills: dict[int, int] = {}  # page by slot
        self._fetches: list[tuple[int, int]] = []
        self._asked: list[tuple[bool, int, int]] = []
        self._jobs: deque[_Job] = deque()
        self._moved_at = 0.0  # since when the first job has been the first
        self._number = 0
        self._finished = 0
        self._void = 0  # jobs up to this one bring nothing that may be used
        self._spoilt = 0  # reads up to this one may have brought another page than was written
        self._reading: dict[BlockKey, int] = {}
        self._writing: set[BlockKey] = set()
        self._unwritten: OrderedDict[int, None] = (
            OrderedDict()
        )  # host slots whose page is not on disk, the oldest first
        self._from_disk: set[int] = set()  # host slots read from disk and not hit since
        self._counts = dict.fromkeys(("host_hits", "disk_hits", "spilled", "fetched", "written", "read"), 0)

    def figures(self) -> TierFigures:
        disk = 0 if self.broken else self.disk.slots
        return TierFigures(self.host.stored, self.host.slots, self.disk.stored, disk, **self._counts)

    def find(self, entry: Entry) -> Place | None:
        """Where this page lies, the nearer place if there are two."""
        for shelf in (self.host, self.disk):
            if (slot := shelf.find(entry)) is not None:
                return Place(shelf.medium, slot)
        return None

    def has(self, key: BlockKey) -> bool:
        """Whether a page with this key lies here."""
        return self.host.slot(key) is not None or self.disk.slot(key) is not None

    def contradicts(self, entry: Entry) -> bool:
        """Whether the key stands for another page here, by a collision."""
        return self.host.contradicts(entry) or self.disk.contradicts(entry)

    def spill(self, page: int, entry: Entry) -> None:
        """The page gives way on the device: with the next plan it is copied here, unless it is here already."""
        if (slot := self.host.slot(entry.key)) is not None:
            self.host.touch(slot)
            return
        if entry.key in self._reading or (slot := self._host_slot()) is None:
            return
        self._spills[slot] = page
        self.host.store(slot, entry)
        if not self.broken and self.disk.slot(entry.key) is None:
            self._unwritten[slot] = None

    def keep(self, places: Sequence[Place]) -> None:
        """The host's pages among these are going to be fetched with the next plan: until then they stay."""
        for place in places:
            if place.medium is Medium.HOST:
                self.host.pin(place.at)

    def fetch(self, slot: int, page: int) -> Entry:
        """A page that was kept is copied to the device with the next plan, before any of its work; what it holds."""
        self._fetches.append((slot, page))
        self._counts["fetched"] += 1
        self._counts["disk_hits" if slot in self._from_disk else "host_hits"] += 1
        self._from_disk.discard(slot)
        return self.host.entry(slot)

    def read(self, places: Sequence[Place]) -> int:
        """Begins to bring those on disk into host memory, as many as there is room for; the number of the last job that
        does so, 0 when there is none."""
        for place in places:
            if place.medium is Medium.HOST:
                self.host.touch(place.at)
        last = 0
        for place in places:
            if place.medium is not Medium.DISK:
                continue
            entry = self.disk.entry(place.at)
            number = self._reading.get(entry.key) or self._read(place.at, entry)
            if not number:
                break
            last = max(last, number)
        return last

    def reads(self, number: int) -> bool:
        """Whether this job is still on its way."""
        return number > max(self._finished, self._void) and not self.broken

    def settle(self) -> None:
        """Takes what the ranks have finished."""
        if not self._jobs:
            return
        finished, failed, self._spoilt = self._progress()
        if failed and not self.broken:  # before the jobs that count as finished are taken: one of them failed
            self._give_up("failed")
        now = time.monotonic()
        while self._jobs and self._jobs[0].number <= finished:
            self._end(self._jobs.popleft())
            self._moved_at = now
        if self._jobs and not self.broken and now - self._moved_at > STALL_S:
            self._give_up(f"finished nothing for {STALL_S:g} s")

    def wait(self) -> None:
        """Returns when a job has ended or a moment has passed, for a loop with nothing else to do than to wait for
        pages; at once when none are on their way."""
        deadline = time.monotonic() + WAIT_S
        while self._reading and self._progress().finished == self._finished and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def drain(self) -> PageMoves | None:
        """The moves of the next plan."""
        self._write_behind()
        if not (self._spills or self._fetches or self._asked):
            return None
        self._counts["spilled"] += len(self._spills)
        moves = PageMoves([(page, slot) for slot, page in self._spills.items()], self._fetches, self._asked)
        for slot, _ in self._fetches:
            self.host.unpin(slot)
        self._spills, self._fetches, self._asked = {}, [], []
        return moves

    def clear(self) -> None:
        """Forgets every page, and what is on its way. Events say nothing of it."""
        assert not (self._spills or self._fetches), "between plans only"
        self.host.clear()
        self.disk.clear()
        self._unwritten.clear()
        self._from_disk.clear()
        self._reading.clear()
        self._writing.clear()
        self._void = self._number

    def _host_slot(self) -> int | None:
        slot = self.host.take()
        if slot is not None:
            self._unwritten.pop(slot, None)
            self._from_disk.discard(slot)
            self._spills.pop(slot, None)
        return slot

    def _read(self, disk_slot: int, entry: Entry) -> int:
        if self.broken or 2 * len(self._reading) >= self.host.slots or (slot := self._host_slot()) is None:
            return 0
        self.disk.touch(disk_slot)
        self._reading[entry.key] = number = self._ask(False, slot, disk_slot, entry)
        return number

    def _write_behind(self) -> None:
        while (
            not self.broken
            and self._unwritten
            and 2 * self.host.blank < self.host.slots
            and len(self._jobs) < MAX_WRITES
            and (disk_slot := self.disk.take()) is not None
        ):
            slot, _ = self._unwritten.popitem(last=False)
            entry = self.host.entry(slot)
            if self.disk.slot(entry.key) is not None or entry.key in self._writing:
                self.disk.give_back(disk_slot)
                continue
            self.host.pin(slot)
            self._writing.add(entry.key)
            self._ask(True, slot, disk_slot, entry)

    def _ask(self, write: bool, slot: int, disk_slot: int, entry: Entry) -> int:
        self._number += 1
        self._asked.append((write, slot, disk_slot))
        if not self._jobs:
            self._moved_at = time.monotonic()
        self._jobs.append(_Job(self._number, write, slot, disk_slot, entry))
        return self._number

    def _end(self, job: _Job) -> None:
        self._finished = job.number
        sound = job.write or job.number > self._spoilt
        usable = job.number > self._void and not self.broken and sound
        if job.number > self._void:
            if job.write:
                self._writing.discard(job.entry.key)
            else:
                self._reading.pop(job.entry.key, None)
        self._counts["written" if job.write else "read"] += usable
        if job.write:
            self.host.unpin(job.slot)
            if usable:
                self.disk.store(job.disk_slot, job.entry)
            else:
                self.disk.give_back(job.disk_slot)
        elif usable and self.host.slot(job.entry.key) is None:
            self.host.store(job.slot, job.entry)
            self._from_disk.add(job.slot)
        else:
            self.host.give_back(job.slot)
        if not sound and self.disk.find(job.entry) == job.disk_slot:
            self.disk.drop(job.disk_slot)

    def _give_up(self, why: str) -> None:
        """Without its disk the group goes on. Slots of jobs on their way stay untouched until the ranks are through."""
        log.error("the KV tier's disk %s: going on without it", why)
        self.broken = True
        self._unwritten.clear()
        self._reading.clear()
        for key in self.disk.clear():
            self.events.removed(key, Medium.DISK)
