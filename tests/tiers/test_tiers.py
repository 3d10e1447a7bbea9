"""Corners of the tiers that random requests do not meet: collisions of keys, a cleared cache under a busy disk, a disk
that says nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headway.worker.pages import Entry, Medium, PagePool, Place
from headway.worker.tiers import Progress, Tiers
from headway.worker.tiers import tiers as module

ROOT = b"root".ljust(16)


def entry(number: int, tokens: bytes = b"", parent: bytes = ROOT) -> Entry:
    return Entry(number.to_bytes(16, "little"), parent, tokens or number.to_bytes(64, "little"))


class Disk:
    """Ranks that finish what a test lets them."""

    def __init__(self) -> None:
        self.progress = Progress(0, False)

    def __call__(self) -> Progress:
        return self.progress


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def tiers(disk: Disk) -> Tiers:
    """Pages 0 and 1 of four in host memory, page 0 on disk, too."""
    tiers = Tiers(2, 8, disk)
    tiers.spill(5, entry(0))
    tiers.spill(6, entry(1))
    moves = tiers.drain()
    assert moves is not None and len(moves.spills) == 2 and all(write for write, _, _ in moves.disk)
    disk.progress = Progress(len(moves.disk), False)
    tiers.settle()
    return tiers


def push_out(tiers: Tiers) -> None:
    """Other pages take both host slots."""
    for number in (10, 11):
        tiers.spill(number, entry(number))
    tiers.drain()


def test_a_hit_compares_parent_and_tokens_in_every_tier(tiers: Tiers) -> None:
    for medium in (Medium.HOST, Medium.DISK):
        found = tiers.find(entry(0))
        assert found is not None and found.medium is medium
        for other in (entry(0, tokens=b"others"), entry(0, parent=b"elsewhere")):
            assert tiers.find(other) is None and tiers.contradicts(other)
        assert not tiers.contradicts(entry(0))
        push_out(tiers)


def test_what_is_read_for_a_cleared_cache_is_not_used(tiers: Tiers, disk: Disk) -> None:
    push_out(tiers)
    place = tiers.find(entry(0))
    assert place is not None and place.medium is Medium.DISK
    # Both host slots are being written: nothing can be read until they are.
    assert tiers.read([place]) == 0
    disk.progress = Progress(4, False)
    tiers.settle()
    job = tiers.read([place])
    assert job and tiers.reads(job) and tiers.read([place]) == job, "one job for all who want the page"
    tiers.drain()
    tiers.clear()
    assert not tiers.reads(job), "nobody waits for it any longer"
    disk.progress = Progress(job, False)
    tiers.settle()
    assert tiers.find(entry(0)) is None and tiers.host.stored == tiers.disk.stored == 0
    assert tiers.host.blank == 2 and tiers.disk.blank == 8, "and no slot is lost"


@pytest.mark.parametrize("why", ["failed", "stalled"])
def test_a_disk_that_fails_or_says_nothing_is_given_up(
    tiers: Tiers, disk: Disk, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_out(tiers)
    disk.progress = Progress(4, False)
    tiers.settle()
    place = tiers.find(entry(0))
    assert place is not None
    job = tiers.read([place, Place(Medium.DISK, place.at)])
    tiers.drain()
    tiers.events.drain()
    if why == "failed":
        disk.progress = Progress(4, True)
    else:
        monkeypatch.setattr(module, "STALL_S", -1.0)
    tiers.settle()
    assert tiers.broken and not tiers.reads(job) and tiers.disk.stored == 0
    (change,) = tiers.events.drain()
    assert change.medium is Medium.DISK and len(change.keys) == 4
    assert tiers.host.blank == 0, "its slot is not touched while a rank may still write it"
    tiers.spill(9, entry(0))
    moves = tiers.drain()
    assert moves is not None and moves.spills, "nobody brings it any longer"
    disk.progress = Progress(job, True)
    tiers.settle()
    assert tiers.host.blank == 1 and tiers.figures().disk_total == 0
    tiers.spill(3, entry(12))
    moves = tiers.drain()
    assert moves is not None and moves.spills and not moves.disk


def test_a_disk_is_timed_from_what_it_finished_last(tiers: Tiers, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between long steps nobody takes what is finished: that is no stall."""
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    push_out(tiers)  # jobs 3 and 4
    for finished in (3, 4):
        now += module.STALL_S + 1
        disk.progress = Progress(finished, False)
        tiers.settle()
        assert not tiers.broken
    place = tiers.find(entry(0))
    assert place is not None and tiers.read([place])
    tiers.drain()
    for seconds, broken in ((module.STALL_S, False), (1, True)):
        now += seconds
        tiers.settle()
        assert tiers.broken is broken


def test_a_spill_whose_slot_is_taken_again_before_the_plan_is_dropped(tiers: Tiers) -> None:
    """Else the ranks would write into a slot that the disk is reading into."""
    disk_slot = tiers.disk.find(entry(0))
    assert disk_slot is not None
    tiers.spill(7, entry(20))
    tiers.spill(8, entry(21))
    assert tiers.read([Place(Medium.DISK, disk_slot)])
    moves = tiers.drain()
    assert moves is not None
    assert [page for page, _ in moves.spills] == [8] and tiers.find(entry(20)) is None


def test_a_page_that_is_being_read_is_not_copied_down_as_well(tiers: Tiers, disk: Disk) -> None:
    push_out(tiers)
    disk.progress = Progress(4, False)
    tiers.settle()
    place = tiers.find(entry(0))
    assert place is not None and tiers.read([place])
    tiers.spill(9, entry(0))
    moves = tiers.drain()
    assert moves is not None and not moves.spills


def test_reads_leave_half_of_the_host_to_others(disk: Disk) -> None:
    tiers = Tiers(4, 8, disk)
    for number in range(8):
        tiers.spill(number, entry(number))
        if number % 4 == 3:
            tiers.drain()
            disk.progress = Progress(tiers._number, False)
            tiers.settle()
    places = [Place(Medium.DISK, tiers.disk.find(entry(number))) for number in range(4)]
    assert tiers.read(places)
    moves = tiers.drain()
    assert moves is not None and [write for write, _, _ in moves.disk].count(False) == 2


def test_no_more_writes_wait_at_the_disk_than_may(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WRITES", 2)
    tiers = Tiers(4, 8, disk)
    for number in range(4):
        tiers.spill(number, entry(number))
    for jobs, finished in ((2, 1), (1, 3), (1, 4)):
        moves = tiers.drain()
        assert moves is not None and len(moves.disk) == jobs
        disk.progress = Progress(finished, False)
        tiers.settle()
    assert tiers.disk.stored == 4 and tiers.drain() is None


def test_what_collides_with_a_page_in_a_tier_is_not_stored(tiers: Tiers) -> None:
    pool = PagePool(2, 16, tiers)
    (page,) = pool.take(1)
    other = entry(0, tokens=b"others")
    assert not pool.store(page, other.key, other.parent, other.tokens)
    assert not pool.keys()


def test_a_page_that_the_disk_has_spoilt_is_gone(tiers: Tiers, disk: Disk) -> None:
    push_out(tiers)
    disk.progress = Progress(4, False)
    tiers.settle()
    place = tiers.find(entry(0))
    assert place is not None
    job = tiers.read([place])
    tiers.drain()
    tiers.events.drain()
    disk.progress = Progress(job, False, spoilt=job)
    tiers.settle()
    assert tiers.find(entry(0)) is None and not tiers.reads(job) and not tiers.broken
    assert tiers.host.blank == 1 and tiers.figures().read == 0
    (change,) = tiers.events.drain()
    assert change.medium is Medium.DISK and list(change.keys) == [entry(0).key]
    place = tiers.find(entry(1))
    assert place is not None
    job = tiers.read([place])
    tiers.drain()
    disk.progress = Progress(job, False, spoilt=job - 1)
    tiers.settle()
    place = tiers.find(entry(1))
    assert place is not None and place.medium is Medium.HOST, "the next one is sound"
