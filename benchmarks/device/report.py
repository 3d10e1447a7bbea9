"""The tables: rows as they come, from whichever process, and the page that they make in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .profile_kinds import KINDS


class Row(NamedTuple):
    """One line of a table of TABLES; what it has too few of is left empty."""

    table: str
    cells: Sequence[str]


class Table(NamedTuple):
    """What stands above its rows."""

    caption: str
    columns: tuple[str, ...]


TABLES = {
    "kernels": Table("", ("kernel", "shape", "µs", "share of its floor", "torch µs")),
    "served": Table(
        "", ("model", "workload", "tok/s", "share of the bound", "step ms", "outside the model", "first token ms")
    ),
    "decoded": Table(
        "Decode steps alone, the prompts in the cache:",
        ("model", "rows × context", "tok/s", "step ms", "bound ms", "share of the bound", "outside the model"),
    ),
    "where": Table(
        "Where the time of decode steps goes, of what the profiler saw on the device:",
        ("model", "rows × context", "idle", *KINDS),
    ),
}


def markdown(heads: Iterable[str], rows: Sequence[Row]) -> str:
    """The page: `heads`, then every table that has rows."""
    parts = [head for head in heads if head]
    for name, table in TABLES.items():
        found = [row.cells for row in rows if row.table == name]
        if found:
            width = len(table.columns)
            lines = [_line(table.columns), "|" + "---|" * width, *(_line(_filled(cells, width)) for cells in found)]
            parts += [table.caption] * bool(table.caption) + ["\n".join(lines)]
    return "\n\n".join(parts)


def told(error: BaseException) -> str:
    """One line of what went wrong, fit for a cell."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text[:120].replace("|", "/")


def _filled(cells: Sequence[str], width: int) -> list[str]:
    return [*cells, *[""] * (width - len(cells))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
