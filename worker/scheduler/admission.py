"""Admission: which waiting requests join the batch in this step, and who gives way.

Who joins must find its pages free, and a peak of page use to come (forecast.py) that stays within them: else it waits
for others to end, rather than to have one of them preempted. One that outranks running requests does not wait.

A victim is less urgent than who needs its pages, so that the most urgent always goes on, and a victim is back before
any that came after it. Among those it is of the least priority, and of these the one that loses the least work.
"""

from __future__ import annotations

import itertools

from ..pages import Prefix
from ..plan import RowAdded
from .adapters import BASE
from .forecast import Forecast
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
        self._forecast = Forecast(roster.pool, roster.lengths) if limits.admission_forecast else None
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
            if request.pending:
                return  # it gave way, comes back when its last token is known, and nobody may take its place
            if request.sits_out or self._waits(request):
                at += 1
                continue
            victims = self._victims(request, shares)
            if not (self._roster.rows.available or victims) or self._blocked(request):
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

    def give_way(self, needy: Request, shares: Shares) -> None:
        """A running request needs a page and none is free: another one is preempted, or itself."""
        later = itertools.takewhile(lambda other: other is not needy, reversed(self._roster.running))
        self._roster.preempt(min((other for other in later if other not in shares), key=_loss, default=needy), shares)

    def _waits(self, request: Request) -> bool:
        """Whether pages of its prefix are being computed, or are on their way from disk."""
        if request.waits_for in self._roster.underway:
            return True
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
        """Running requests that would give way to this one, in that order."""
        if request.priority >= self._roster.least_priority:
            return []
        outranked = (other for other in self._roster.running if request.outranks(other) and other not in shares)
        return sorted(outranked, key=_loss)

    def _make_room(self, request: Request, hits: list[int], victims: list[Request], shares: Shares) -> bool:
        """Holds `hits` and sees to a row and to pages for the rest of its tokens; without success all is as before."""
        used = self._pool.used_pages
        self._pool.share(hits)
        missing = self._pool.pages_for(len(request.tokens)) - len(hits)
        freed = self._pool.freed_by(victim.pages for victim in victims) if victims else 0
        spare = self._limits.watermark if len(self._roster.running) > len(victims) else 0
        if missing + spare <= self._pool.free_pages + freed and self._lasts(request, hits, victims, used - freed):
            while victims and not self._fits(missing):
                self._roster.preempt(victims.pop(0), shares)
            assert self._fits(missing)
            return True
        self._pool.release(hits)
        self._blocked_at = (request, self._roster.departures)
        return False

    def _fits(self, pages: int) -> bool:
        spare = self._limits.watermark if self._roster.running else 0
        return bool(self._roster.rows.available) and pages + spare <= self._pool.free_pages

    def _lasts(self, request: Request, hits: list[int], victims: list[Request], used: int) -> bool:
        """Whether pages will probably last for it and those that would not give way to it, who have `used`."""
        room = self._pool.total_pages - self._limits.watermark
        most = self._roster.most_pages + self._pool.pages_for(request.prompt_tokens + request.max_new_tokens)
        if self._forecast is None or most <= room or len(self._roster.running) == len(victims):
            return True
        self._roster.decodes.settle()
        gone = set(victims)
        others = [other for other in self._roster.running if other not in gone]
        peak = self._forecast.peak_with(others, request, hits, used)
        # One that is estimated to outgrow the room by itself must not keep out those who make nothing worse.
        return peak <= room or peak <= self._forecast.peak(others, used)

    @property
    def held_up(self) -> bool:
        """Whether the next one in the queue does not fit beside those that run."""
        waiting = self._roster.waiting
        return bool(waiting) and self._blocked(waiting[0])

    def _blocked(self, request: Request) -> bool:
        """Whether it did not fit before and nobody has left the batch since: its prefix is then not walked again."""
        return bool(self._roster.running) and self._blocked_at == (request, self._roster.departures)


def _loss(victim: Request) -> tuple[int, int, tuple[int, int]]:
    """The least goes first: lowest priority, least work that was its own, last in line."""
    return -victim.priority, victim.computed - victim.entered, (-victim.urgency[0], -victim.urgency[1])
