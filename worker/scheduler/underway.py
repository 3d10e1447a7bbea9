"""Pages that a running request is computing right now: who wants the same prefix had better wait for them."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.blocks import BlockKey
from .request import Request


class Underway:
    """Keys of full pages whose tokens are known and whose KV comes with the next steps, each with who computes it.

    A request waits for running ones only, and these compute something as long as they run: so every wait ends, with the
    page, or with the one that was to compute it.
    """

    def __init__(self) -> None:
        self._owners: dict[BlockKey, Request] = {}

    def begin(self, request: Request, page_size: int) -> None:
        """A request starts to run: it will compute all of its full pages that are not computed yet."""
        for key in request.keys[request.computed // page_size : len(request.tokens) // page_size]:
            self._owners.setdefault(key, request)

    def end(self, request: Request, first: int, last: int) -> None:
        """Its pages number `first` to `last` - 1 are computed, or will not be."""
        for key in request.keys[first:last]:
            if self._owners.get(key) is request:
                del self._owners[key]

    def reach(self, keys: Sequence[BlockKey], first: int, limit: int) -> int:
        """Where the run of pages that are underway ends: it starts at page `first` and goes to `limit` at most."""
        while first < limit and keys[first] in self._owners:
            first += 1
        return first

    def __contains__(self, key: BlockKey | None) -> bool:
        return key in self._owners
