"""Requests that end when their time is up, by the clock of this process alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..scheduler import Request


class Deadlines:
    """Tells when to look, so that nobody has to be looked at in every step."""

    def __init__(self) -> None:
        self.next = math.inf  # no live request ends before; one that is gone may have said so

    def add(self, request: Request) -> None:
        self.next = min(self.next, request.deadline)

    def take(self, now: float, live: Iterable[Request]) -> list[Request]:
        """Those of the `live` requests whose time is up."""
        if now < self.next:
            return []
        due = []
        self.next = math.inf
        for request in live:
            if request.deadline <= now:
                due.append(request)
            else:
                self.add(request)
        return due
