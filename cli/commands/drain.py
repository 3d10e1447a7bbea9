"""`headway drain REPLICA`: one replica goes, another takes its place."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options
from ..change import Admin, DryRun, Reason, admin_address, print_effect

Replica = Annotated[str, typer.Argument(help="Id, as `headway status` shows it.")]
Patience = Annotated[float, typer.Option("--timeout", help="Seconds that running requests have.", min=0)]


def register(app: typer.Typer) -> None:
    app.command("drain", help="Let one replica finish and go; another takes its place.")(drain)


def drain(
    replica: Replica,
    timeout: Patience = 30.0,
    dry_run: DryRun = False,
    reason: Reason = "",
    as_json: options.AsJson = False,
    admin: Admin = None,
) -> None:
    """Returns when the controller has taken it on; `headway status` shows how it goes."""
    from ...proto.headway.v1 import admin_pb2
    from ..cluster.admin import ASK_S, admin_stub

    address = admin_address(admin)
    change = admin_pb2.Change(dry_run=dry_run, reason=reason)
    request = admin_pb2.DrainReplicaRequest(change=change, replica_id=replica)
    request.timeout.FromMicroseconds(int(timeout * 1e6))
    with console.told(address), admin_stub(address) as stub:
        print_effect(stub.DrainReplica(request, timeout=ASK_S).effect, as_json)
