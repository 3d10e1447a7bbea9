"""Generated sequences at the terminal: each under its number, with its log probabilities below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..client import Delta, Finish, Logprob, TokenLogprob
from .console import write

HEADINGS = ("#", "token", "logprob", "likeliest")


class SequencePrinter:
    """Shows sequence 0 as it comes, and each next one as soon as those before it have ended.

    A single sequence has no number above it. `finishes` tells which have ended; the stream keeps it.
    """

    def __init__(self, count: int, finishes: Mapping[int, Finish]) -> None:
        self._count = count
        self._finishes = finishes
        self._waiting: defaultdict[int, list[Delta]] = defaultdict(list)
        self._places: list[TokenLogprob] = []
        self._current = 0
        self._begun = False

    def take(self, delta: Delta) -> None:
        self._waiting[delta.index].append(delta)
        self.show()

    def show(self) -> None:
        """Writes what can be written now; call it once more at the stream's end."""
        while self._current < self._count:
            self._show_current()
            if self._current not in self._finishes:
                return
            write("\n" + ("\n" + table(self._places) if self._places else ""))
            self._current, self._begun, self._places = self._current + 1, False, []

    def _show_current(self) -> None:
        if not self._begun and self._count > 1:
            write(("\n" if self._current else "") + f"[{self._current}]\n")
        self._begun = True
        for delta in self._waiting[self._current]:
            write(delta.text)
            self._places += delta.logprobs
        self._waiting[self._current].clear()


def table(places: Sequence[TokenLogprob]) -> str:
    """A line for each place: its number, the token in quotes, its log probability, the likeliest ones beside it."""
    rows = [HEADINGS] + [
        (
            str(number),
            quoted(place),
            f"{place.logprob:.3f}",
            "  ".join(f"{quoted(e)} {e.logprob:.3f}" for e in place.top),
        )
        for number, place in enumerate(places)
    ]
    if not any(place.top for place in places):
        rows = [(*row[:3], "") for row in rows]
    number, token, logprob = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [f"{row[0]:>{number}}  {row[1]:<{token}}  {row[2]:>{logprob}}  {row[3]}".rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def quoted(entry: Logprob) -> str:
    """The token so that white space is seen, and bytes that are no characters."""
    try:
        return repr(entry.utf8.decode())
    except UnicodeDecodeError:
        return repr(entry.utf8)
