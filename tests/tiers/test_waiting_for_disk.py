"""A request waits once for pages on disk: those that fell off again before it could enter are computed."""

from __future__ import annotations

from array import array

from fake_ranks import PAGE_SIZE
from tiered_ranks import TieredRanks

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.pages import PagePool
from headway.worker.scheduler import Limits, Request, Scheduler
from headway.worker.tiers import Tiers

PAGES, HOST, DISK = 4, 4, 8
ROOT = root_key("revision")
LIMITS = Limits(
    page_size=PAGE_SIZE, total_pages=PAGES, max_context_tokens=PAGES * PAGE_SIZE, max_sequences=2, token_budget=16,
    max_waiting=4, vocab_size=50, admission_forecast=False,
)  # fmt: skip


def request(first: int, tokens: int) -> Request:
    return Request(
        session=0, id=first, tokens=array("I", range(first, first + tokens)), prompt_tokens=tokens, max_new_tokens=1,
        sampling=SamplingParams(), root=ROOT, page_size=PAGE_SIZE,
    )  # fmt: skip


def test_a_request_does_not_wait_for_the_disk_again() -> None:
    ranks = TieredRanks(PAGES, LIMITS.vocab_size, HOST, DISK)
    tiers = Tiers(HOST, DISK, ranks.progress)
    scheduler = Scheduler(LIMITS, PagePool(PAGES, PAGE_SIZE, tiers))

    def step() -> None:
        scheduler.update(ranks.step(scheduler.schedule()))
        ranks.finish(10)

    prefix = 2 * PAGE_SIZE + 1
    for first in (0, 100, 200, 300, 400):
        scheduler.submit(request(first, prefix))
        step()
    again = request(0, prefix)
    scheduler.submit(again)
    step()
    assert again.disk_job and not again.pages
    tiers.settle()
    for slot in [tiers._host_slot() for _ in range(HOST)]:  # others push what was read out of host memory
        assert slot is not None
        tiers.host.give_back(slot)
    assert all(tiers.host.slot(key) is None and tiers.disk.slot(key) is not None for key in again.keys[:2])
    step()
    assert again.over and again.cached_tokens == 0
