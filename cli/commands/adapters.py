"""`headway adapters`: LoRA adapters, loaded and unloaded while the cluster serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..change import Admin, DryRun, Reason, admin_address, model_or_only, print_effect

if TYPE_CHECKING:
    from ..cluster.adapters import AdapterStatus

Name = Annotated[str, typer.Argument(help="Name, by which requests call it as a model.")]
Directory = Annotated[Path, typer.Argument(help="Directory in PEFT's layout, on the workers' machine.")]

LOAD_S = 180.0


def register(app: typer.Typer) -> None:
    adapters = typer.Typer(help="Load, unload and list LoRA adapters.", no_args_is_help=True)
    adapters.command("load", help="Have every replica of a model hold an adapter.")(load)
    adapters.command("unload", help="Let an adapter go; requests that run with it end with it.")(unload)
    adapters.command("list", help="Show the adapters, and how many replicas hold each.")(show)
    app.add_typer(adapters, name="adapters")


def load(
    name: Name,
    path: Directory,
    model: options.Model = None,
    dry_run: DryRun = False,
    reason: Reason = "",
    as_json: options.AsJson = False,
    admin: Admin = None,
) -> None:
    """Returns when all replicas that serve have read it; an adapter that cannot be used is refused with the reason."""
    from ...proto.headway.v1 import admin_pb2
    from ..cluster.admin import admin_stub

    address = admin_address(admin)
    with console.told(address):
        base = model_or_only(model, address)
        change = admin_pb2.Change(dry_run=dry_run, reason=reason)
        where = str(path.expanduser().absolute())
        request = admin_pb2.LoadAdapterRequest(change=change, model=base, name=name, path=where)
        with admin_stub(address) as stub:
            print_effect(stub.LoadAdapter(request, timeout=LOAD_S).effect, as_json)


def unload(
    name: Name,
    dry_run: DryRun = False,
    reason: Reason = "",
    as_json: options.AsJson = False,
    admin: Admin = None,
) -> None:
    """Returns when the controller has taken it on."""
    from ...proto.headway.v1 import admin_pb2
    from ..cluster.admin import ASK_S, admin_stub

    address = admin_address(admin)
    with console.told(address), admin_stub(address) as stub:
        change = admin_pb2.Change(dry_run=dry_run, reason=reason)
        request = admin_pb2.UnloadAdapterRequest(change=change, name=name)
        print_effect(stub.UnloadAdapter(request, timeout=ASK_S).effect, as_json)


def show(as_json: options.AsJson = False, admin: Admin = None) -> None:
    """A table, or one document with `--json`."""
    from ..cluster.adapters import adapter_statuses
    from ..cluster.admin import look

    address = admin_address(admin)
    with console.told(address):
        found = adapter_statuses(look(address))
    if as_json:
        console.print_json({"adapters": found})
    elif not found:
        print("no adapters")
    else:
        _print_table(found)


def _print_table(found: list[AdapterStatus]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("ADAPTER", "MODEL", "REPLICAS", "PATH", "ERROR"):
        table.add_column(heading)
    for adapter in found:
        ready = f"{adapter.ready_replicas}/{adapter.replicas}"
        errors = "; ".join(sorted(set(adapter.errors.values())))
        table.add_row(adapter.name, adapter.model, ready, Text(adapter.path), Text(errors))
    Console(highlight=False).print(table)
