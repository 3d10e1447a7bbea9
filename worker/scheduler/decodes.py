"""Running requests that decode and have nothing else to look after, in columns: a step is a few operations on arrays,
however many they are.

What a step does to such a request is always the same: its row goes on with the token that was sampled for it last. So
no plan, result or report has an object for it. Its Request keeps what it was when it sat down (`Request.seat`), the
columns have what came since, and it gets all of that back when it gets up: when a token may end it, when it is aborted
or has to give way, and whenever the scheduler wants to look at requests one by one. Its tokens, and the pages they
fill, it gets back page by page.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..pages import PagePool
from .request import Request

Int64 = npt.NDArray[np.int64]
SEATS = 16
MOST_ID = 2**63 - 1
_NOBODY: Int64 = np.empty(0, np.int64)


class Column(IntEnum):
    """Of each seat: its number and row; its request's session and id; tokens that plans may still sample; tokens for
    which its last page has room; plans so far, and those of them that are out; results since the request got its tokens
    back; tokens that results may still bring, and those that its page still wants computed."""

    SEAT, ROW, SESSION, ID, LEFT, ROOM, PLANNED, OUT, DONE, TO_COME, PAGE_LEFT = range(11)


# What a plan changes, and what a result does: neighbours, so that each is one operation.
IN_A_PLAN, BY_A_PLAN = slice(Column.LEFT, Column.OUT + 1), np.array([[-1], [-1], [1], [1]])
IN_A_RESULT, BY_A_RESULT = slice(Column.OUT, Column.PAGE_LEFT + 1), np.array([[-1], [1], [-1], [-1]])


class Decoding(NamedTuple):
    """The part of a plan: seats and rows, [n] each and in one order, and (row, page) for those that got a page."""

    seats: Int64
    rows: Int64
    grown: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.seats)


class Advanced(NamedTuple):
    """Requests that went on by one token each and have nothing else to tell: sessions, ids and tokens, [n] each."""

    sessions: Int64
    ids: Int64
    tokens: Int64


NONE_DECODING = Decoding(_NOBODY, _NOBODY, [])
NONE_ADVANCED = Advanced(_NOBODY, _NOBODY, _NOBODY)


@dataclass(slots=True)
class Risen:
    """A request that got up while plans with it were out, and how many results are to come. `stay` is the one
    that it was in."""

    request: Request
    stay: int
    out: int


class Decodes:
    """The columns. `advance` is told that so many more tokens of a request are computed, and known; `rose` hears who
    got up."""

    def __init__(
        self,
        page_size: int,
        vocab_size: int,
        advance: Callable[[Request, int], None],
        rose: Callable[[Request], None],
    ) -> None:
        self._page_size = page_size
        self._advance = advance
        self._rose = rose
        self._numbers = itertools.count(1)
        self._requests: list[Request] = []
        self._columns: Int64 = np.zeros((len(Column), SEATS), np.int64)
        self._tokens: npt.NDArray[np.uint32] = np.zeros((SEATS, page_size), np.uint32)
        self._ends: npt.NDArray[np.int32] = np.zeros(vocab_size, np.int32)  # how many each token would end
        self._risen: dict[int, Risen] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def due(self) -> bool:
        """Whether any of them has something to compute."""
        return bool(self._of(Column.LEFT).any())

    @staticmethod
    def suits(request: Request) -> bool:
        """Whether a running request that decodes can sit down: the ranks know all of its tokens but the last, which
        they sampled."""
        plain = request.logprobs < 0 and request.prompt_logprobs < 0 and request.id <= MOST_ID
        return plain and request.ahead and not request.pooling and request.told == request.planned

    def sit(self, request: Request) -> None:
        """A request that suits sits down, behind the others."""
        at, size = len(self._requests), self._page_size
        if at == self._columns.shape[1]:
            self._columns = np.pad(self._columns, ((0, 0), (0, at)))
            self._tokens = np.pad(self._tokens, ((0, at), (0, 0)))
        request.seat = next(self._numbers)
        left = request.prompt_tokens + request.max_new_tokens - request.planned - 1
        room = len(request.pages) * size - request.planned
        page_left = size - request.planned % size
        self._columns[:, at] = (
            request.seat, request.row, request.session, request.id, left, room, 0, 0, 0, left, page_left,
        )  # fmt: skip
        self._requests.append(request)
        self._count_ends(request, 1)

    def rise(self, request: Request) -> None:
        """One that sits gets up, and has all that came since it sat down."""
        at = int(np.searchsorted(self._of(Column.SEAT), request.seat))
        assert self._requests[at] is request
        self._rise([at])

    def rise_all(self) -> None:
        """All get up."""
        self._rise(list(range(len(self))))

    def settle(self) -> None:
        """Every request gets its tokens, and goes on."""
        for at in np.flatnonzero(self._of(Column.DONE)).tolist():
            self._give_back(at)

    def plan(self, pool: PagePool) -> Decoding:
        """One more token for each that has one to compute. The caller has made sure that there are pages for it."""
        due = np.flatnonzero(self._of(Column.LEFT))
        full = due[self._columns[Column.ROOM, due] == 0]
        grown = [self._grow(at, pool) for at in full.tolist()]
        self._columns[IN_A_PLAN, due] += BY_A_PLAN
        return Decoding(self._columns[Column.SEAT, due], self._columns[Column.ROW, due], grown)

    def take(self, decoding: Decoding, tokens: Int64) -> tuple[Advanced, list[tuple[Risen, int]]]:
        """What the result of a plan, with `tokens` [n], means: for those that go on, and for each that has got up, by
        now or because of its token, what it was and its token."""
        if not len(decoding):
            return NONE_ADVANCED, []
        at = np.minimum(np.searchsorted(self._of(Column.SEAT), decoding.seats), self._columns.shape[1] - 1)
        sits = self._columns[Column.SEAT, at] == decoding.seats
        goes_on = sits & ~self._may_end(at, tokens)
        if goes_on.all():
            return self._go_on(at, tokens), []
        advanced = self._go_on(at[goes_on], tokens[goes_on])
        self._rise(at[sits & ~goes_on].tolist())
        others = np.flatnonzero(~goes_on)
        return advanced, [
            (self._arrived(seat), token)
            for seat, token in zip(decoding.seats[others].tolist(), tokens[others].tolist(), strict=True)
        ]

    def _of(self, column: Column) -> Int64:
        return self._columns[column, : len(self._requests)]

    def _may_end(self, at: Int64, tokens: Int64) -> npt.NDArray[np.bool_]:
        """Whether a token is the last that may come, one that ends somebody, or none (worker/plan.py)."""
        last: npt.NDArray[np.bool_] = self._columns[Column.TO_COME, at] == 1
        return last | (tokens < 0) | (self._ends[np.maximum(tokens, 0)] > 0)

    def _go_on(self, at: Int64, tokens: Int64) -> Advanced:
        columns = self._columns
        self._tokens[at, columns[Column.DONE, at]] = tokens
        columns[IN_A_RESULT, at] += BY_A_RESULT
        for full in at[columns[Column.PAGE_LEFT, at] == 0].tolist():
            columns[Column.PAGE_LEFT, full] = self._page_size
            self._give_back(full)
        return Advanced(columns[Column.SESSION, at], columns[Column.ID, at], tokens)

    def _grow(self, at: int, pool: PagePool) -> tuple[int, int]:
        (page,) = pool.take(1)
        self._requests[at].pages.append(page)
        self._columns[Column.ROOM, at] = self._page_size
        return int(self._columns[Column.ROW, at]), page

    def _give_back(self, at: int) -> None:
        """The request in this place gets its tokens."""
        request, done = self._requests[at], int(self._columns[Column.DONE, at])
        if done:
            request.tokens.frombytes(self._tokens[at, :done].tobytes())
            self._columns[Column.DONE, at] = 0
            self._advance(request, done)

    def _rise(self, places: list[int]) -> None:
        if not places:
            return
        for at in places:
            self._give_back(at)
            request = self._requests[at]
            planned, out = self._columns[[Column.PLANNED, Column.OUT], at].tolist()
            request.planned += planned
            request.told += planned
            request.pending += out
            if out:
                self._risen[request.seat] = Risen(request, request.stays, out)
            request.seat = 0
            self._count_ends(request, -1)
            self._rose(request)
        stay = np.delete(np.arange(len(self)), places)
        self._columns[:, : len(stay)] = self._columns[:, stay]
        self._columns[Column.SEAT, len(stay) : len(self)] = 0  # behind those that sit there is no number of theirs
        self._tokens[: len(stay)] = self._tokens[stay]
        self._requests = [self._requests[at] for at in stay.tolist()]

    def _arrived(self, seat: int) -> Risen:
        """A result came for one that has got up."""
        risen = self._risen[seat]
        risen.out -= 1
        if not risen.out:
            del self._risen[seat]
        return risen

    def _count_ends(self, request: Request, by: int) -> None:
        for token in {*request.eos_token_ids, *request.stop_token_ids}:
            if token < len(self._ends):
                self._ends[token] += by
