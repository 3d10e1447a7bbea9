"""How one step's token budget is spent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..plan import SAMPLED, RowWork
from .decodes import NONE_DECODING, Decoding
from .request import Request


class Share(NamedTuple):
    """Tokens of one request that a step computes, from which on, the pages it took for them, and what comes of it.

    `stay` and `row` are the request's when the step was planned."""

    stay: int
    row: int
    first: int
    tokens: int
    new_pages: list[int]
    sample: bool
    embed: bool


class Shares:
    """The step's work in plan order, with what is left of the budget.

    One token each is set aside for the requests that are `due`: those that decode. `rows` may have work at most.
    `decoding` are those that decode in columns: they have theirs already, and are in no need of an item.
    """

    def __init__(self, budget: int, due: Iterable[Request], rows: int, decoding: Decoding = NONE_DECODING) -> None:
        self.budget = budget - len(decoding)
        self.decoding = decoding
        self._rows = rows - len(decoding)
        assert self.budget >= 0
        self._due = set(due)
        self._shares: dict[Request, Share] = {}

    @property
    def spare(self) -> int:
        """What is left of the budget for requests that are not due."""
        return 0 if self.full else self.budget - len(self._due)

    @property
    def full(self) -> bool:
        """Whether as many rows have work as may have."""
        return len(self._shares) >= self._rows

    @property
    def spoken_for(self) -> bool:
        """Whether no row is left for requests that are not due."""
        return len(self._shares) + len(self._due) >= self._rows

    def due(self, request: Request) -> bool:
        """Whether a token is set aside for it."""
        return request in self._due

    def allowance(self, request: Request) -> int:
        """How many tokens a request may have computed."""
        if self.full:
            return 0
        return 1 if request in self._due else min(request.remaining, self.spare)

    def drop(self, request: Request) -> None:
        """A request gets nothing in this step, and nothing more from steps that are out."""
        assert request not in self._shares
        self._due.discard(request)

    def give(self, request: Request, count: int, new_pages: list[int]) -> None:
        remaining = 1 if request in self._due else request.remaining
        assert 0 < count <= self.budget and count <= remaining
        self.budget -= count
        self._due.discard(request)
        last = count == remaining
        sample, embed = last and not request.pooling, last and bool(request.pooling)
        self._shares[request] = Share(request.stays, request.row, request.planned, count, new_pages, sample, embed)
        request.planned += count
        request.pending += sample

    def __len__(self) -> int:
        return len(self._shares) + len(self.decoding)

    def __contains__(self, request: Request) -> bool:
        return request in self._shares or bool(request.seat)

    def items(self) -> Iterator[tuple[Request, Share]]:
        """All but those that decode in columns."""
        return iter(self._shares.items())

    def samples(self) -> int:
        return sum(share.sample for share in self._shares.values()) + len(self.decoding)

    def embeds(self) -> list[int]:
        """Rows that give an embedding."""
        return [share.row for share in self._shares.values() if share.embed]

    def work(self) -> list[RowWork]:
        return [
            RowWork(share.row, share.first, share.tokens, share.sample, share.new_pages)
            for share in self._shares.values()
        ]

    def appended(self) -> list[tuple[int, int]]:
        """What the ranks have to be told of the rows' tokens before this work, and are told with it."""
        appended = []
        for request, share in self._shares.items():
            if share.first + share.tokens > request.told:
                known = request.told < len(request.tokens)
                appended.append((share.row, request.tokens[request.told] if known else SAMPLED))
                request.told += 1
        return appended
