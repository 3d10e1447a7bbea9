"""What was measured, as a table for docs/performance.md, as ratios between servers, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .load import Figures, Prefixes

HEADER = "| model | load | server | output tok/s | TTFT p50 / p99 ms | TPOT p50 / p99 ms |\n|---|---|---|---|---|---|"
PREFIX_HEADER = "| model | server | TTFT cold ms | TTFT warm ms | cut |\n|---|---|---|---|---|"
RATIO_HEADER = "| model | load | server | beside | output | TTFT p50 | TPOT p50 |\n|---|---|---|---|---|---|---|"
OURS = "headway"


class Result(NamedTuple):
    """One run of one server. `found` is None when it was left out, and `why` says why."""

    model: str
    load: str
    server: str
    dtype: str
    found: Figures | Prefixes | None
    why: str = ""

    @property
    def name(self) -> str:
        return f"{self.server}, {self.dtype}"

    def row(self) -> str:
        """Of its table."""
        match self.found:
            case Figures(rate, ttft, tpot, requests, cut):
                times = " | ".join(f"{p50:.1f} / {p99:.1f}" for p50, p99 in (ttft, tpot))
                note = f" ({cut} of {requests} requests cut short)" if cut else ""
                return f"| {self.model} | {self.load} | {self.name} | {rate:.0f}{note} | {times} |"
            case Prefixes(cold, warm, _):
                return f"| {self.model} | {self.name} | {cold:.1f} | {warm:.1f} | {cold / warm:.1f}x |"
            case _:
                return f"| {self.model} | {self.load} | {self.name} | {self.why} | | |"


def tables(results: Iterable[Result]) -> str:
    """All runs: throughput and latency, then warm prefixes, then ours beside every peer's."""
    results = list(results)
    loads = [result.row() for result in results if not isinstance(result.found, Prefixes)]
    prefixes = [result.row() for result in results if isinstance(result.found, Prefixes)]
    parts = [[HEADER, *loads], [PREFIX_HEADER, *prefixes], [RATIO_HEADER, *ratios(results)]]
    return "\n\n".join("\n".join(part) for part in parts if len(part) > 1)


def ratios(results: list[Result]) -> list[str]:
    """Each of our rows over each peer's of the same model and load; above 1 ours is better, in times too."""
    return [
        f"| {ours.model} | {ours.load} | {ours.name} | {theirs.name} | {' | '.join(_ratio(ours.found, theirs.found))} |"
        for ours in results
        for theirs in results
        if ours.server == OURS and theirs.server != OURS
        if (ours.model, ours.load) == (theirs.model, theirs.load)
        if isinstance(ours.found, Figures) and isinstance(theirs.found, Figures)
    ]


def _ratio(ours: Figures, theirs: Figures) -> Iterable[str]:
    yield _over(ours.output_tokens_per_s, theirs.output_tokens_per_s)
    yield _over(theirs.ttft[0], ours.ttft[0])
    yield _over(theirs.tpot[0], ours.tpot[0])


def _over(above: float, below: float) -> str:
    return f"{above / below:.2f}" if above and below else "–"


def write_json(path: Path, about: dict[str, Any], results: Iterable[Result]) -> None:
    runs = [
        {**result._asdict(), "found": None if result.found is None else result.found._asdict()} for result in results
    ]
    path.write_text(json.dumps({**about, "runs": runs}, indent=1))
