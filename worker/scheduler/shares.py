"""How one step's token budget is spent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..plan import RowWork
from .request import Request


class Share(NamedTuple):
    """How many tokens of one request this step computes, the pages it took for them, and what comes of them."""

    tokens: int
    new_pages: list[int]
    sample: bool
    embed: bool


class Shares:
    """The step's work in plan order, with what is left of the budget."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._shares: dict[Request, Share] = {}

    def give(self, request: Request, count: int, new_pages: list[int]) -> None:
        assert 0 < count <= min(self.budget, request.remaining)
        self.budget -= count
        last = count == request.remaining
        self._shares[request] = Share(count, new_pages, last and not request.pooling, last and bool(request.pooling))

    def __len__(self) -> int:
        return len(self._shares)

    def __contains__(self, request: Request) -> bool:
        return request in self._shares

    def items(self) -> Iterator[tuple[Request, Share]]:
        return iter(self._shares.items())

    def samples(self) -> int:
        return sum(share.sample for share in self._shares.values())

    def embeds(self) -> list[int]:
        """Rows that give an embedding."""
        return [request.row for request, share in self._shares.items() if share.embed]

    def work(self) -> list[RowWork]:
        return [
            RowWork(request.row, request.computed, share.tokens, share.sample, share.new_pages)
            for request, share in self._shares.items()
        ]
