"""Runs the units in processes of their own: one for all of them while all is well, another one after each that dies or
hangs. Needs no torch."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .report import Row

FAMILIES = (
    "decode attention", "prefill attention", "linear", "experts", "adapters", "elementwise", "sampling", "pages",
)  # fmt: skip
TABLES_OF_MODELS = ("served", "decoded", "where")
ROW_S = 150.0  # after which a unit without another row counts as hung
POLL_S = 0.1


def all_units(parts: Iterable[str], tiny: bool) -> list[str]:
    """The units of the parts "kernels" and "engine", in order."""
    units = [f"kernels/{family}" for family in FAMILIES] if "kernels" in parts else []
    models = ("tiny",) if tiny else ("Qwen3-0.6B", "Llama-3.1-8B")
    return units + [f"{table}/{model}" for model in models for table in TABLES_OF_MODELS if "engine" in parts]


@dataclass
class Found:
    """What came of all units so far."""

    device: str = ""
    ceilings: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def run_units(
    units: Sequence[str], command: Callable[[Sequence[str], Path, Sequence[float]], list[str]], found: Found,
    tell: Callable[[str], None], end: float,
) -> None:  # fmt: skip
    """Fills `found`; `command` starts a process for units that appends to a log, given the ceilings if they are known.
    What still runs at `end`, by the monotonic clock, is killed. Never raises for what a unit does."""
    left = list(units)
    while True:
        with tempfile.TemporaryDirectory(prefix="headway-gpu-") as folder:
            watch = _Watch(Path(folder, "log"), found, tell)
            code = watch.over(command(left, watch.log, found.ceilings), end)
        if watch.current is not None:
            table, _, what = watch.current.rpartition("/")
            found.rows.append(Row(table or "kernels", [what, _cause(code)]))
        elif not watch.done and code and left:
            found.rows.append(Row(left[0].split("/")[0], [left[0], _cause(code)]))
            watch.done.append(left[0])
        gone = {*watch.done, watch.current}
        left = [unit for unit in left if unit not in gone]
        if not left or not found.ceilings:
            return


def _cause(code: int | None) -> str:
    if code is None:
        return "ended: it took too long"
    return f"its process died of signal {-code}" if code < 0 else f"its process ended with {code}"


class _Watch:
    """One process: what it has written, and the unit that it is at."""

    def __init__(self, log: Path, found: Found, tell: Callable[[str], None]) -> None:
        self.log = log
        self.current: str | None = None
        self.done: list[str] = []
        self._found, self._tell = found, tell
        self._since = time.monotonic()
        self._read = 0

    def over(self, command: list[str], end: float) -> int | None:
        """Starts it and waits; its exit code, None if it had to be killed."""
        with subprocess.Popen(command) as running:
            try:
                while running.poll() is None:
                    self._take()
                    now = time.monotonic()
                    if now > end or now > self._since + ROW_S:
                        running.kill()
                        running.wait()
                        self._take()
                        return None
                    time.sleep(POLL_S)
            except BaseException:
                running.kill()
                raise
        self._take()
        return running.returncode

    def _take(self) -> None:
        if not self.log.exists():
            return
        with self.log.open() as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._read = file.tell()
                self._note(*json.loads(line))

    def _note(self, kind: str, *rest: Any) -> None:
        self._since = time.monotonic()
        if kind == "begin":
            self.current = rest[0]
            self._tell(rest[0])
        elif kind == "end":
            self.done.append(rest[0])
            self.current = None
        elif kind == "row":
            self._found.rows.append(Row(rest[0], rest[1]))
        elif kind == "device":
            self._found.device = rest[0]
        elif kind == "ceilings":
            self._found.ceilings = list(rest)
