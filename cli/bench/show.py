"""The bench at the terminal: progress while it runs, a table at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import runner
from .histogram import Summary
from .tally import HOPELESS, RunReport, Tally

# Above this the generator, not the cluster, may be what was measured.
BUSY_GENERATOR = 0.8


@contextmanager
def progress(console: Console) -> Iterator[runner.Progress]:
    """Bars on a terminal; elsewhere one line when a run ends."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description:>14}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("[dim]{task.fields[note]}"), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, requests: int, tally: Tally, ended: bool) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=requests, note="")
            bars.update(tasks[name], completed=tally.done, note=note(tally))
            if ended:
                bars.stop_task(tasks[name])

        yield show


def _lines(console: Console) -> runner.Progress:
    def show(name: str, requests: int, tally: Tally, ended: bool) -> None:
        if ended:
            console.print(f"{name}: {tally.done} of {requests} requests, {note(tally)}", highlight=False)

    return show


def note(tally: Tally) -> str:
    """The figures so far, in few words."""
    errors = f", {tally.errors.total()} failed" if tally.errors else ""
    rate = tally.output_tokens / tally.elapsed_s()
    return f"{rate:,.0f} tokens/s, first after {tally.ttft.quantile(0.5):.0f} ms{errors}"


def table(report: runner.BenchReport) -> Table:
    """Runs side by side, figures below each other."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    made.add_column("")
    made.add_column("")
    for run in report.runs:
        made.add_column(title(run), justify="right")
    made.add_row("output tokens/s", "", *(f"[bold]{run.output_tokens_per_s:,.1f}[/]" for run in report.runs))
    made.add_row("requests/s", "", *(f"{run.requests_per_s:,.2f}" for run in report.runs))
    for label, field in (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"), ("gap", "itl_ms"), ("whole", "e2e_ms")):
        summaries: list[Summary | None] = [getattr(run, field) for run in report.runs]
        for row, name in enumerate(("p50", "p90", "p99")):
            values = ("–" if summary is None else _ms(getattr(summary, name)) for summary in summaries)
            made.add_row(f"{label} ms" if row == 0 else "", f"[dim]{name}[/]", *values)
    made.add_row("prompt from cache", "", *(f"{run.cached_share:.0%}" for run in report.runs))
    made.add_row("failed", "", *(_failed(run) for run in report.runs))
    return made


def title(run: RunReport) -> str:
    return f"{run.concurrency} at once" if run.rate is None else f"{run.rate:g}/s"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.1f}"


def _failed(run: RunReport) -> str:
    total = sum(run.errors.values())
    return f"[red]{total} of {run.requests}[/]" if total else "0"


def remarks(report: runner.BenchReport) -> list[str]:
    """What a reader of the table must know: which errors, and figures that are not the cluster's."""
    found: list[str] = []
    for run in report.runs:
        for reason, count in sorted(run.errors.items()):
            found.append(f"{title(run)}: {count} requests failed with {reason}")
        if run.gave_up:
            found.append(f"{title(run)}: given up after {run.requests} requests, the last {HOPELESS} failed in a row")
        if run.rate is not None and run.e2e_ms and run.duration_s > 1.2 * run.arrivals_s + run.e2e_ms.p50 / 1000:
            late = f"the last answer came {run.duration_s - run.arrivals_s:.1f} s after the last arrival"
            found.append(f"{title(run)}: the cluster does not keep up, {late}")
    busy = [run for run in report.runs if run.generator_cpu > BUSY_GENERATOR]
    if busy:
        runs, share = ", ".join(map(title, busy)), max(run.generator_cpu for run in busy)
        found.append(f"{runs}: this command used up to {share:.0%} of a core, so it may itself be the limit")
    return found
