"""`headway scale REPLICAS`: another number of replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options, target

if TYPE_CHECKING:
    from ...proto.headway.v1 import admin_pb2

Replicas = Annotated[int, typer.Argument(help="Replicas wanted.", min=0)]
Admin = Annotated[
    str | None, typer.Option(help="Controller's gRPC, HOST:PORT. Default: the local cluster's.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]
Reason = Annotated[str, typer.Option(help="Text for the controller's log.")]


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
    from ..cluster.admin import ASK_S, admin_stub, look

    address = admin_address(admin)
    with console.told(address):
        if model is None:
            names = sorted(look(address).models)
            if len(names) != 1:
                console.fail(f"which model? Served: {', '.join(names)}", "Name it with --model.")
            model = names[0]
        change = admin_pb2.Change(dry_run=dry_run, reason=reason)
        request = admin_pb2.ScaleModelRequest(change=change, model=model, replicas=replicas)
        with admin_stub(address) as stub:
            print_effect(stub.ScaleModel(request, timeout=ASK_S).effect, as_json)


def admin_address(option: str | None) -> str:
    """The controller's "host:port". Ends the command when no cluster is known."""
    if option:
        return option
    cluster = target.local_cluster()
    if cluster is None:
        console.fail("no cluster runs here", "Start one with `headway up`, or name a controller: --admin HOST:PORT")
    return cluster.admin_grpc


def print_effect(effect: admin_pb2.Effect, as_json: bool) -> None:
    """The steps that follow from a change, one a line."""
    if as_json:
        console.print_json({"version": effect.version, "steps": list(effect.steps)})
        return
    for step in effect.steps or ["nothing to do"]:
        print(step)
