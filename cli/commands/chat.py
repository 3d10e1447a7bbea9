"""`headway chat`: a conversation at the terminal, or line by line from a pipe."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import console, options, target

System = Annotated[str | None, typer.Option(help="System message to begin with.", show_default=False)]


def register(app: typer.Typer) -> None:
    app.command("chat", help="Talk with a model.")(chat)


def chat(
    system: System = None,
    model: options.Model = None,
    max_tokens: options.MaxTokens = 256,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    timeout: options.Timeout = 600.0,
    address: options.Address = None,
) -> None:
    """Each line is a message; the whole conversation goes with it."""
    where = target.grpc_address(address)
    chosen = options.request_options(model, max_tokens, temperature, top_p, top_k, min_p, seed, stop)

    from ...client import Headway
    from ..conversation import Conversation, converse

    with console.told(where), Headway(where, timeout=timeout) as headway:
        served = headway.model(model or "")
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        converse(Conversation(headway, chosen, system), served.name, interactive)
