"""`headway doctor`: whether a cluster can run here, and what to do where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from .. import console, options

if TYPE_CHECKING:
    from ..checks import Finding

MARKS = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[bold red]fail[/]"}


def register(app: typer.Typer) -> None:
    app.command("doctor", help="Check this machine and the cluster on it.")(doctor)


def doctor(as_json: options.AsJson = False) -> None:
    """Ends with 1 when a check fails; warnings do not count."""
    from ..checks import ALL, Verdict

    found: list[Finding] = []
    for check in ALL:
        found.append(run(check))
        if not as_json:
            show(found[-1])
    failed = sum(finding.verdict is Verdict.FAIL for finding in found)
    if as_json:
        console.print_json({"ok": not failed, "checks": found})
    if failed:
        raise typer.Exit(1)


def run(check: Callable[[], Finding]) -> Finding:
    """The check's finding; a check that breaks is one too, and the others still run."""
    from ..checks import Finding, Verdict

    try:
        return check()
    except Exception as error:
        return Finding(check.__name__, Verdict.FAIL, f"the check itself broke: {error!r}", "Please report this.")


def show(finding: Finding) -> None:
    """One line, and the advice below it."""
    from rich.console import Console
    from rich.markup import escape

    out = Console(highlight=False, soft_wrap=True)
    out.print(f"{MARKS[finding.verdict]} {finding.name:<13} {escape(finding.detail)}")
    if finding.next:
        out.print(f"{'':<18} [dim]{escape(finding.next)}[/]")
