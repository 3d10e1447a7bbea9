"""Requests that a grammar holds: what the scheduler asks of grammars (worker/structured), and whom it waits for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from .guide import Guide
from .request import Request
from .shares import Shares

BRIEF_S = 0.01
IDLE_S = 0.1


class Crew(Protocol):
    """Advances guides on other threads."""

    def advance(self, guides: Collection[Any]) -> None:
        """Begins with guides that a token was pushed to."""
        ...

    def wait(self, guides: Collection[Any], timeout_s: float) -> None:
        """Returns when all are ready or `timeout_s` has passed."""
        ...


class Guides:
    """The guides of running requests, and those of them that are not ready.

    A guide is waited for once, and briefly. One that takes longer has its request sit out steps until it is there: so a
    slow grammar holds up nobody else.
    """

    def __init__(self, crew: Crew | None) -> None:
        self._crew = crew
        self._fresh: dict[Request, Guide] = {}
        self._late: dict[Request, Guide] = {}

    def masks(self, shares: Shares) -> list[tuple[int, bytes]]:
        """Those of the rows that this step samples."""
        return [
            (request.row, request.guide.mask)
            for request, share in shares.items()
            if share.sample and request.guide is not None
        ]

    def push(self, request: Request, token: int) -> None:
        """A request goes on with a token."""
        if request.guide is not None:
            request.guide.push(token)
            self._fresh[request] = request.guide

    def drop(self, request: Request) -> None:
        """A request has ended."""
        self._fresh.pop(request, None)
        self._late.pop(request, None)

    def start(self) -> None:
        """Has the crew begin with what was pushed."""
        if self._fresh:
            assert self._crew is not None, "a request has a guide, and nobody is there to advance it"
            self._crew.advance(self._fresh.values())

    def settle(self, *, idle: bool) -> list[Request]:
        """The requests that end here. `idle`: the step had nothing to do, so those that are late are waited for."""
        waiting = {**self._late, **self._fresh}
        if self._crew is not None and waiting:
            waited_for = waiting if idle else self._fresh
            self._crew.wait(waited_for.values(), IDLE_S if idle else BRIEF_S)
        self._fresh = {}
        self._late = {request: guide for request, guide in waiting.items() if not (guide.ready or guide.error)}
        return [request for request, guide in waiting.items() if guide.error or (guide.ready and guide.over)]
