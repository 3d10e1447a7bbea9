"""The scheduler's own machine, with a host and a disk tier under few pages: all that it promises still holds (tokens,
ends, pages, priorities), every tier's slots add up, what the leader believes of a slot is what lies there, and a
router's mirror made of the events equals the tiers at all times. The disk takes its time, spoils pages, and fails now
and then."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import test_page_accounting as base
from fake_ranks import PAGE_SIZE, prefix_digest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, invariant, precondition, rule
from msgspec import structs
from tiered_ranks import TieredRanks

from headway.core.blocks import BlockKey, root_key
from headway.worker.pages import KvOp, Medium, PagePool
from headway.worker.plan import StepPlan
from headway.worker.scheduler import Scheduler
from headway.worker.tiers import Tiers
from headway.worker.tiers.shelf import Shelf

ROOTS = [root_key("revision", tenant_salt=str(root)) for root in range(2)]


class TieredMachine(base.Machine):
    @initialize(
        forecast=st.booleans(),
        stages=st.integers(1, 3),
        host=st.sampled_from([1, 6, 12]),
        disk=st.sampled_from([0, 4, 30]),
        in_columns=st.sampled_from([1, 2, 100]),
    )
    def begin(self, forecast: bool, stages: int, host: int = 1, disk: int = 0, in_columns: int = 100) -> None:
        self.ranks = TieredRanks(base.TOTAL_PAGES, base.VOCABULARY, host, disk)
        self.tiers = Tiers(host, disk, self.ranks.progress)
        self.pool = PagePool(base.TOTAL_PAGES, PAGE_SIZE, self.tiers)
        limits = structs.replace(base.LIMITS, admission_forecast=forecast, stages=stages)
        self.scheduler = Scheduler(limits, self.pool, in_columns=in_columns)
        self.mirror: dict[Medium, set[BlockKey]] = {medium: set() for medium in Medium}
        self.stuck = 0

    @rule(jobs=st.integers(1, 12))
    def disk_goes_on(self, jobs: int) -> None:
        self.ranks.finish(jobs)

    @precondition(lambda self: self.ranks.finished > 3 and not self.ranks.broken)
    @rule(really=st.sampled_from([False, False, False, False, False, True]))
    def disk_breaks(self, really: bool) -> None:
        self.ranks.broken = really
        self.ranks.finish(int(really))

    @rule()
    def disk_spoils_a_page(self) -> None:
        self.ranks.spoils = True

    @rule(
        turns=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([22, 30])), min_size=2, max_size=5),
        steps=st.integers(3, 12),
        jobs=st.integers(0, 6),
    )
    def long_prompts_in_turn(self, turns: list[tuple[int, int]], steps: int, jobs: int) -> None:
        """They push each other out, and come back."""
        for family, length in turns:
            self.submit(family, length, 0, 2, 0, False, 0, 0, False)
            for _ in range(steps):
                self.one_step()
                self.slots_add_up()
                self.slots_hold_what_is_believed()
                self.ranks.finish(jobs)

    @rule()
    def plan(self) -> None:
        reading = [request for request in self.live if self.tiers.reads(request.disk_job)]
        assert not any(request.planned for request in reading), "who runs does not wait for the disk"
        super().plan()

    def check_progress(self, plan: StepPlan) -> None:
        """As without tiers, but whoever waits for the disk does so without work to do."""
        waits = [request for request in self.live if self.tiers.reads(request.disk_job)]
        assert not plan.idle or not set(self.live) - set(waits), "work to do, and no progress"

    @precondition(lambda self: self.results)
    @rule()
    def take_result(self) -> None:
        with patch("headway.worker.tiers.tiers.WAIT_S", 0.0):
            super().take_result()
            assert not self.scheduler.settle()

    @invariant()
    def index_and_events_agree(self) -> None:
        for change in self.pool.events.drain():
            held = self.mirror[change.medium]
            if change.op is KvOp.CLEARED:
                for keys in self.mirror.values():
                    keys.clear()
            elif change.op is KvOp.STORED:
                assert not held & set(change.keys)
                held |= set(change.keys)
            else:
                assert held >= set(change.keys)
                held -= set(change.keys)
        for medium, keys in enumerate((self.pool.keys(), self.tiers.host.keys(), self.tiers.disk.keys())):
            assert self.mirror[Medium(medium)] == set(keys)

    @invariant()
    def slots_add_up(self) -> None:
        jobs = self.tiers._jobs
        taken_host = Counter(job.slot for job in jobs if not job.write)
        taken_disk = Counter(job.disk_slot for job in jobs if job.write)
        pinned = Counter(job.slot for job in jobs if job.write)
        assert self.tiers.host._pins == pinned and not self.tiers.disk._pins
        for shelf, taken in ((self.tiers.host, taken_host), (self.tiers.disk, taken_disk)):
            self.one_place_each(shelf, taken)
        unwritten = {slot for slot in self.tiers._unwritten if slot not in pinned}
        assert unwritten <= set(self.tiers.host._entries)
        assert not (self.tiers._spills or self.tiers._fetches)

    @staticmethod
    def one_place_each(shelf: Shelf, taken: Counter[int]) -> None:
        orphans = [slot for slot in shelf._pins if slot not in shelf._entries]  # cleared while the disk had them
        places = Counter(shelf._blank) + Counter(shelf._entries.keys()) + taken + Counter(orphans)
        assert places == Counter(range(shelf.slots)), "each slot in one place"
        assert {shelf._index[entry.key] for entry in shelf._entries.values()} == set(shelf._entries)
        assert set(shelf._unpinned) == set(shelf._entries) - set(shelf._pins)

    @invariant()
    def slots_hold_what_is_believed(self) -> None:
        """The key of a page says which tokens come before it: its KV there is that of the whole prefix."""
        prefixes = self.prefixes()
        for shelf, slots in ((self.tiers.host, self.ranks.host), (self.tiers.disk, self.ranks.disk)):
            for slot, entry in shelf._entries.items():
                assert slots[slot] == prefixes[entry.key], f"{shelf.medium.name} slot {slot}"

    def prefixes(self) -> dict[BlockKey, list[int]]:
        """KV that every page ever seen must have, by its key."""
        for request in self.wanted:
            salt = request.sampling.seed.to_bytes(8, "little")
            for page, key in enumerate(request.keys):
                if key not in self.known:
                    known = np.asarray(request.tokens[: (page + 1) * PAGE_SIZE]).tolist()
                    self.known[key] = prefix_digest(salt, known)[-PAGE_SIZE:]
        return self.known

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[BlockKey, list[int]] = {}

    def teardown(self) -> None:
        if not hasattr(self, "tiers"):
            return
        steps = 0
        while self.live or self.results:
            self.one_step(ahead=steps % 2 == 0)
            self.ranks.finish(1)
            steps += 1
            assert steps < 2000, "requests do not end"
        self.ranks.finish(10_000)
        self.one_step()
        for check in (self.pages_add_up, self.index_and_events_agree, self.slots_add_up):
            check()
        assert self.pool.used_pages == 0 and self.scheduler.uncached_tokens == 0
        assert self.tiers.figures().fetched == self.ranks.fetched


TestTierAccounting = TieredMachine.TestCase
TestTierAccounting.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
