"""Requests in order of urgency."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from .request import Request

_urgency = attrgetter("urgency")


class Line:
    """Requests, the most urgent first. No two have the same urgency, and it never changes while they stand in line."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __reversed__(self) -> Iterator[Request]:
        return reversed(self._requests)

    def __getitem__(self, at: int) -> Request:
        return self._requests[at]

    def add(self, request: Request) -> None:
        insort(self._requests, request, key=_urgency)

    def remove(self, request: Request) -> None:
        at = bisect_left(self._requests, request.urgency, key=_urgency)
        assert self._requests[at] is request
        del self._requests[at]
