"""`headway models`: what the cluster serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .. import console, options, target

if TYPE_CHECKING:
    from rich.table import Table

    from ...client import Model


def register(app: typer.Typer) -> None:
    app.command("models", help="List the models that are served.")(models)


def models(as_json: options.AsJson = False, address: options.Address = None) -> None:
    """A table, or one document with `--json`."""
    where = target.grpc_address(address)

    from ...client import Headway

    with console.told(where), Headway(where, timeout=30) as headway:
        found = headway.models()
    if as_json:
        console.print_json({"models": found})
    elif not found:
        console.fail(f"{where} serves no model yet", "See `headway status` for how far its replicas are.")
    else:
        from rich.console import Console

        Console().print(table(found))


def table(found: list[Model]) -> Table:
    """One row a model."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    made.add_column("MODEL")
    made.add_column("REPLICAS", justify="right")
    made.add_column("CONTEXT", justify="right")
    made.add_column("VOCABULARY", justify="right")
    made.add_column("FEATURES")
    made.add_column("REVISION", overflow="ellipsis", no_wrap=True, max_width=14)
    for model in found:
        ready = str(model.ready_replicas) if model.ready_replicas else "[red]0[/]"
        features = ", ".join(model.features)
        made.add_row(
            model.name, ready, f"{model.max_context_tokens:,}", f"{model.vocab_size:,}", features, model.revision
        )
    return made
