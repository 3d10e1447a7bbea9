"""`headway rollback`: the settings of an earlier revision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..change import Admin, DryRun, Reason, admin_address, model_or_only, print_effect

if TYPE_CHECKING:
    from ...proto.headway.v1 import admin_pb2

Number = Annotated[
    int | None,
    typer.Option("--to", help="Revision, as --list shows it. Default: the one before.", min=1, show_default=False),
]
List = Annotated[bool, typer.Option("--list", help="Show the revisions, newest first, and change nothing.")]


def register(app: typer.Typer) -> None:
    app.command("rollback", help="Set a model back to an earlier revision.")(rollback)


def rollback(
    model: options.Model = None,
    to: Number = None,
    show: List = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    as_json: options.AsJson = False,
    admin: Admin = None,
) -> None:
    """Returns when the controller has taken it on; `headway status` shows how it goes."""
    from ...proto.headway.v1 import admin_pb2
    from ..cluster.admin import ASK_S, admin_stub

    if show and (to is not None or dry_run or reason):
        console.fail("--list goes with --model and --json only", "Leave --list away to change something.")
    address = admin_address(admin)
    with console.told(address):
        name = model_or_only(model, address)
        with admin_stub(address) as stub:
            if show:
                listing = stub.ListRevisions(admin_pb2.ListRevisionsRequest(model=name), timeout=ASK_S)
                print_revisions(listing.revisions, as_json)
            else:
                change = admin_pb2.Change(dry_run=dry_run, reason=reason)
                request = admin_pb2.RollbackModelRequest(change=change, model=name, revision=to or 0)
                print_effect(stub.RollbackModel(request, timeout=ASK_S).effect, as_json)


def print_revisions(revisions: Sequence[admin_pb2.ModelRevision], as_json: bool) -> None:
    """A table with local times, or one document with UTC ones and all settings."""
    if as_json:
        console.print_json({"revisions": [_document(revision) for revision in revisions]})
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("REVISION", "SINCE", "REPLICAS", "CHANGE", "REASON"):
        table.add_column(heading)
    for revision in revisions:
        since = revision.time.ToDatetime(UTC).astimezone()
        replicas = str(revision.model.desired_replicas)
        table.add_row(
            str(revision.number), f"{since:%Y-%m-%d %H:%M:%S}", replicas, revision.what, Text(revision.reason)
        )
    Console(highlight=False).print(table)


def _document(revision: admin_pb2.ModelRevision) -> dict[str, Any]:
    from ..cluster.admin import plain

    return {
        "revision": revision.number,
        "since": revision.time.ToJsonString(),
        "change": revision.what,
        "reason": revision.reason,
        "settings": plain(revision.model),
    }
