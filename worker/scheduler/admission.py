"""Admission: which waiting requests join the batch in this step, and who gives way.

The victim of a preemption is always the last that runs, and the first that runs always makes progress.
"""

from __future__ import annotations

import itertools

from ..pages import Prefix
from ..plan import RowAdded
from .adapters import BASE
from .limits import Limits
from .request import Request
from .roster import Roster
from .shares import Shares


class Admission:
    """Takes waiting requests into the batch, the most urgent first."""

    def __init__(self, limits: Limits, roster: Roster) -> None:
        self._limits = limits
        self._roster = roster
        self._pool = roster.pool
        self._blocked_at: tuple[Request, int] | None = None

    def admit(self, shares: Shares, added: list[RowAdded], ahead_of: Request | None = None) -> None:
        """Takes waiting requests into the batch, in order, as long as budget, rows and pages last.

        Those that outrank `ahead_of` go before it, and may take rows and pages of running ones that they outrank.
        """
        # Without `ahead_of` and with budget left, whoever runs has pages for all its tokens, or none is free: no page
        # is promised to anybody.
        # A request whose adapter finds no slot lets those without an adapter pass, and no others: they would keep the
        # slots from it.
        waiting = self._roster.waiting
        at, held_up = 0, False
        while at < len(waiting) and shares.spare > 0:
            request = waiting[at]
            if ahead_of is not None and not request.outranks(ahead_of):
                return
            if request.adapter != BASE and (held_up or not self._roster.adapters.available(request.adapter)):
                held_up = True
                at += 1
                continue
            if request.sits_out or request.waits_for in self._roster.underway or self._reads_disk(request):
                at += 1
                continue
            victims = self._victims(request, shares)
            if not (self._roster.rows.available or victims) or self._blocked(request, victims):
                return
            prefix = self._roster.find(request)
            if self._wait_for_disk(request, prefix):
                at += 1
                continue
            prefix = prefix.before_disk()
            if self._wait_for_prefix(request, prefix.depth):
                at += 1
                continue
            if not self._make_room(request, prefix.held, victims, shares):
                return
            added.append(self._roster.enter(request, prefix))
            count = shares.allowance(request)
            shares.give(request, count, self._roster.grow(request, count))

    def give_way(self, shares: Shares) -> None:
        """A running request needs pages and there are none: the last one that runs, perhaps itself, is preempted."""
        self._roster.preempt(self._roster.running[-1], shares)

    def _reads_disk(self, request: Request) -> bool:
        """Whether pages of its prefix are on their way from disk."""
        return self._pool.tiers is not None and self._pool.tiers.reads(request.disk_job)

    def _wait_for_disk(self, request: Request, prefix: Prefix) -> bool:
        """Whether its prefix has pages on disk, which it has brought nearer, once, before it enters."""
        if request.disk_job or self._pool.tiers is None or not prefix.on_disk:
            return False
        request.disk_job = self._pool.tiers.read(prefix.rest)
        return bool(request.disk_job)

    def _wait_for_prefix(self, request: Request, hits: int) -> bool:
        """Whether a running request computes pages that this one can share as soon as they are there.

        It then waits for the last of them, and those behind it go on.
        """
        if not request.reads_cache:
            return False
        end = self._roster.underway.reach(request.keys, hits, (len(request.tokens) - 1) // self._pool.page_size)
        if end == hits:
            return False
        request.waits_for = request.keys[end - 1]
        self._roster.set_uncached(request, len(request.tokens) - end * self._pool.page_size)
        return True

    def _victims(self, request: Request, shares: Shares) -> list[Request]:
        """Running requests that would give way to this one, the last first."""
        running = reversed(self._roster.running)
        return list(itertools.takewhile(lambda other: request.outranks(other) and other not in shares, running))

    def _make_room(self, request: Request, hits: list[int], victims: list[Request], shares: Shares) -> bool:
        """Holds `hits` and sees to a row and to pages for the rest of its tokens; without success all is as before."""
        available = self._available(victims)
        self._pool.share(hits)
        missing = self._pool.pages_for(len(request.tokens)) - len(hits)
        if missing <= self._pool.free_pages + self._pool.freed_by(victim.pages for victim in victims):
            while victims and not self._fits(missing):
                self._roster.preempt(victims.pop(0), shares)
            if self._fits(missing):
                self._blocked_at = None
                return True
        self._pool.release(hits)
        self._blocked_at = (request, available)
        return False

    def _fits(self, pages: int) -> bool:
        return bool(self._roster.rows.available) and pages + self._spare_pages <= self._pool.free_pages

    @property
    def _spare_pages(self) -> int:
        return self._limits.watermark if self._roster.running else 0

    def _available(self, victims: list[Request]) -> int:
        return self._pool.free_pages - self._spare_pages + sum(len(victim.pages) for victim in victims)

    def _blocked(self, request: Request, victims: list[Request]) -> bool:
        """Whether it did not fit before and no page has come free since: its prefix is then not walked again."""
        return (
            bool(self._roster.running)
            and self._blocked_at is not None
            and self._blocked_at[0] is request
            and self._available(victims) <= self._blocked_at[1]
        )
