"""The scheduler tests' checked ranks with tiers below: moves are applied literally, disk jobs when a test says so."""

from __future__ import annotations

from collections import deque

from fake_ranks import PAGE_SIZE, FakeRanks

from headway.worker.plan import PageMoves, StepPlan, StepResult
from headway.worker.tiers import Progress

Page = list[int | None]


class TieredRanks(FakeRanks):
    """`finish` does disk jobs; with `broken` set they only count. With `spoils` the next read brings another page."""

    def __init__(self, total_pages: int, vocabulary: int, host_pages: int, disk_pages: int) -> None:
        super().__init__(total_pages, vocabulary)
        self.host: list[Page | None] = [None] * host_pages
        self.disk: list[Page | None] = [None] * disk_pages
        self.jobs: deque[tuple[bool, int, int]] = deque()
        self.finished = 0
        self.broken = False
        self.spoils = False
        self.spoilt = 0
        self.fetched = 0

    def progress(self) -> Progress:
        return Progress.of(Progress(self.finished, self.broken, self.spoilt).word)

    def step(self, plan: StepPlan) -> StepResult:
        if plan.moves is not None:
            self.move(plan.moves)
        return super().step(plan)

    def move(self, moves: PageMoves) -> None:
        busy = {slot for _, slot, _ in self.jobs}
        unread = {slot for write, slot, _ in self.jobs if not write}
        for places in (
            [page for page, _ in moves.spills],
            [slot for _, slot in moves.spills],
            [page for _, page in moves.fetches],
        ):
            assert len(set(places)) == len(places), "each place once"
        for page, slot in moves.spills:
            assert slot not in busy, "the disk is not through with the slot"
            self.host[slot] = self.slots[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        for slot, page in moves.fetches:
            copied = self.host[slot]
            assert slot not in unread and copied is not None
            self.slots[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = copied
            self.fetched += 1
        written = {slot for _, slot in moves.spills}
        for write, slot, disk_slot in moves.disk:
            assert slot not in busy and (write or slot not in written)
            busy.add(slot)
            self.jobs.append((write, slot, disk_slot))

    def finish(self, count: int) -> None:
        for _ in range(min(count, len(self.jobs))):
            write, slot, disk_slot = self.jobs.popleft()
            self.finished += 1
            if self.broken:
                continue
            if write:
                self.disk[disk_slot] = self.host[slot]
            else:
                assert self.disk[disk_slot] is not None
                self.host[slot] = [None] * PAGE_SIZE if self.spoils else self.disk[disk_slot]
                if self.spoils:
                    self.spoils, self.spoilt = False, self.finished
