"""Which requests run in this router, by their public ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import AlreadyExists


class RunningIds:
    """An id is one request's at a time, whichever of its sequences or inputs are with the engines just now."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    @contextmanager
    def alone(self, request_id: str, field: str) -> Iterator[None]:
        """Holds the id. Raises AlreadyExists naming the caller's `field`."""
        if request_id in self._ids:
            raise AlreadyExists(f"request {request_id!r} is running", field=field)
        self._ids.add(request_id)
        try:
            yield
        finally:
            self._ids.discard(request_id)
