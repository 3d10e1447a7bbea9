"""`headway embed TEXT...`: a vector for each text."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options, target
from .generate import read_stdin

Texts = Annotated[list[str], typer.Argument(help="Texts to embed; - reads one from stdin.")]
Pooling = Annotated[str | None, typer.Option(help="last (token) or mean (of all). Default: last.", show_default=False)]
Dimensions = Annotated[int | None, typer.Option(help="Keep so many of the first values.", show_default=False)]
Raw = Annotated[bool, typer.Option("--raw", help="Leave the vectors at the length that the model gives them.")]


def register(app: typer.Typer) -> None:
    app.command("embed", help="Turn texts into vectors.")(embed)


def embed(
    texts: Texts,
    model: options.Model = None,
    pooling: Pooling = None,
    dimensions: Dimensions = None,
    raw: Raw = False,
    as_json: options.AsJson = False,
    timeout: options.Timeout = 600.0,
    address: options.Address = None,
) -> None:
    """A line of numbers for each text, or one document with `--json`."""
    inputs = [read_stdin() if text == "-" else text for text in texts]
    where = target.grpc_address(address)

    from ...client import Headway

    with console.told(where), Headway(where, timeout=timeout) as headway:
        found = headway.embed(inputs, model=model, pooling=pooling, dimensions=dimensions, normalize=not raw)
    if as_json:
        console.print_json(found)
        return
    for vector in found.vectors:
        console.write(" ".join(f"{value:.6g}" for value in vector) + "\n")
