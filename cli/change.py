"""What the verbs that change a cluster share: flags, where the controller is, and how its answer is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import console, target

if TYPE_CHECKING:
    from ..proto.headway.v1 import admin_pb2

Admin = Annotated[
    str | None, typer.Option(help="Controller's gRPC, HOST:PORT. Default: the local cluster's.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]
Reason = Annotated[str, typer.Option(help="Text for the controller's log.")]


def admin_address(option: str | None) -> str:
    """The controller's "host:port". Ends the command when no cluster is known."""
    if option:
        return option
    cluster = target.local_cluster()
    if cluster is None:
        console.fail("no cluster runs here", "Start one with `headway up`, or name a controller: --admin HOST:PORT")
    return cluster.admin_grpc


def model_or_only(model: str | None, address: str) -> str:
    """`model`, or the only one that is served. Ends the command when there are others to choose from."""
    from .cluster.admin import look

    if model is not None:
        return model
    names = sorted(look(address).models)
    if len(names) != 1:
        console.fail(f"which model? Served: {', '.join(names)}", "Name it with --model.")
    return names[0]


def print_effect(effect: admin_pb2.Effect, as_json: bool) -> None:
    """The steps that follow from a change, one a line."""
    if as_json:
        console.print_json({"version": effect.version, "steps": list(effect.steps)})
        return
    for step in effect.steps or ["nothing to do"]:
        print(step)
