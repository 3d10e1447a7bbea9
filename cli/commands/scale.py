"""`headway scale REPLICAS`: another number of replicas."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options
from ..change import Admin, DryRun, Reason, admin_address, model_or_only, print_effect

Replicas = Annotated[int, typer.Argument(help="Replicas wanted.", min=0)]


def register(app: typer.Typer) -> None:
    app.command("scale", help="Set the number of replicas.")(scale)


def scale(
    replicas: Replicas,
    model: options.Model = None,
    dry_run: DryRun = False,
    reason: Reason = "",
    as_json: options.AsJson = False,
    admin: Admin = None,
) -> None:
    """Returns when the controller has taken it on; `headway status` shows how it goes."""
    from ...proto.headway.v1 import admin_pb2
    from ..cluster.admin import ASK_S, admin_stub

    address = admin_address(admin)
    with console.told(address):
        name = model_or_only(model, address)
        change = admin_pb2.Change(dry_run=dry_run, reason=reason)
        request = admin_pb2.ScaleModelRequest(change=change, model=name, replicas=replicas)
        with admin_stub(address) as stub:
            print_effect(stub.ScaleModel(request, timeout=ASK_S).effect, as_json)
