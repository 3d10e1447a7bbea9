"""`headway down`: the end of the cluster that `headway up` started."""

from __future__ import annotations

import sys

import typer


def register(app: typer.Typer) -> None:
    app.command("down", help="Stop the cluster of this machine.")(down)


def down() -> None:
    """Returns when no process of it is left. Also cleans up after a supervisor that was killed."""
    from ..cluster.files import Files
    from ..cluster.teardown import running, take_down

    files = Files()
    if running(files) is not None:
        print("Stopping …", file=sys.stderr)
    print("The cluster is down." if take_down(files) else "No cluster runs here.", file=sys.stderr)
