"""The start of a cluster on the terminal: bars where there is one, plain lines where there is none."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from .events import STOPPING, Event, Failed, Ready, ReplicaProgress, Step
from .files import ClusterDocument


class Display:
    """Shows events on stderr; stdout stays free for the result."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._step: TaskID | None = None
        self._replicas: dict[str, TaskID] = {}
        self._states: dict[str, str] = {}

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(finished_text="[green]✓[/]"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def settle(self) -> None:
        """Leaves the bars as they are. Idempotent."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def show(self, event: Event) -> None:
        """One event. The end of the start, good or bad, is for the caller to print."""
        if isinstance(event, Step):
            self._show_step(event)
        elif isinstance(event, ReplicaProgress):
            self._show_replica(event)
        elif isinstance(event, Ready | Failed):
            self._finish_step(isinstance(event, Ready))
            self.settle()

    def _show_step(self, step: Step) -> None:
        if self._bars is None:
            self._console.print(f"{step.text} …")
            return
        self._finish_step(step != STOPPING)
        self._step = self._bars.add_task(step.text, total=None, note="")

    def _finish_step(self, done: bool) -> None:
        if self._bars is not None and self._step is not None and done:
            self._bars.update(self._step, total=1, completed=1)
        self._step = None

    def _show_replica(self, event: ReplicaProgress) -> None:
        note = event.state.lower() + (f": {event.reason}" if event.reason and event.state != "READY" else "")
        if self._bars is None:
            self._print_replica(event, note)
            return
        if event.id not in self._replicas:
            self._replicas[event.id] = self._bars.add_task(f"  {event.id}", total=1.0, note=note)
        # Only a replica that serves is done: weights may be loaded and the group still be waiting for its ranks.
        share = 1.0 if event.state == "READY" else min(event.loaded, 0.99)
        self._bars.update(self._replicas[event.id], completed=share, note=note)

    def _print_replica(self, event: ReplicaProgress, note: str) -> None:
        # Quarters are enough for a log.
        mark = f"{event.state} {int(event.loaded * 4)} {event.reason}"
        if self._states.get(event.id) != mark:
            self._states[event.id] = mark
            share = f" {event.loaded:.0%}" if event.state == "LOADING" else ""
            self._console.print(f"  {event.id} {note}{share}")


def print_summary(document: ClusterDocument, stop: str) -> None:
    """Addresses, and two lines to paste, into any terminal."""
    body = '{"prompt": "def __init__(self, ", "max_tokens": 32}'
    # Another terminal may not have the same HEADWAY_HOME.
    address = f" --address {document.grpc}" if "HEADWAY_HOME" in os.environ else ""
    lines = [
        "",
        f"  gRPC       {document.grpc}",
        f"  HTTP       {document.http}",
        f"  admin      {document.admin}",
        "",
        "  Try:",
        f"    {command()} generate 'def __init__(self, ' --max-tokens 32{address}",
        f"    curl -s {document.http}/v1/completions -H 'Content-Type: application/json' -d '{body}'",
        "",
        f"  {stop}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def command() -> str:
    """`headway` as a user can paste it: the bare word where PATH leads to this installation, else its path, because
    `make up` installs into an environment that nobody has activated."""
    own = Path(sys.executable).parent / "headway"
    found = shutil.which("headway")
    if found is not None and Path(found).absolute() == own.absolute():
        return "headway"
    return shlex.quote(str(own)) if own.is_file() else f"{shlex.quote(sys.executable)} -m headway.cli"
