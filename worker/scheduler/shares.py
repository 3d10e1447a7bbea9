"""How one step's token budget is spent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """The step's work in plan order, with what is left of the budget.

    One token each is set aside for the requests that are `due`: those that decode.
    """

    def __init__(self, budget: int, due: Iterable[Request]) -> None:
        self.budget = budget
        self._due = set(due)
        self._shares: dict[Request, Share] = {}

    @property
    def spare(self) -> int:
        """What is left of the budget for requests that are not due."""
        return self.budget - len(self._due)

    def allowance(self, request: Request) -> int:
        """How many tokens a request may have computed."""
        return 1 if request in self._due else min(request.remaining, self.spare)

    def drop(self, request: Request) -> None:
        """A request gets nothing in this step."""
        assert request not in self._shares
        self._due.discard(request)

    def give(self, request: Request, count: int, new_pages: list[int]) -> None:
        assert 0 < count <= min(self.budget, request.remaining)
        self.budget -= count
        self._due.discard(request)
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
