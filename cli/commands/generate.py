"""`headway generate PROMPT`: the continuation of a text, as it comes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import console, options, target

Prompt = Annotated[str, typer.Argument(help="Text to continue; - reads it from stdin.")]
Stats = Annotated[bool, typer.Option("--stats", help="Say on stderr how many tokens, from which cache, how fast.")]


def register(app: typer.Typer) -> None:
    app.command("generate", help="Continue a text.")(generate)


def generate(
    prompt: Prompt,
    model: options.Model = None,
    max_tokens: options.MaxTokens = 128,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    as_json: options.AsJson = False,
    stats: Stats = False,
    timeout: options.Timeout = 600.0,
    address: options.Address = None,
) -> None:
    """Streams the text to stdout, or prints one document with `--json`."""
    text = read_stdin() if prompt == "-" else prompt
    where = target.grpc_address(address)
    chosen = options.request_options(model, max_tokens, temperature, top_p, top_k, min_p, seed, stop)

    from ...client import Headway

    with console.told(where), Headway(where, timeout=timeout) as headway:
        if as_json:
            chosen["return_token_ids"] = True
            console.print_json(headway.generate(text, **chosen))
            return
        with headway.generate_stream(text, **chosen) as stream:
            for delta in stream:
                console.write(delta.text)
        console.write("\n")
        if stats and stream.finish is not None:
            print(f"{stream.usage}; ended by {stream.finish.reason}", file=sys.stderr)


def read_stdin() -> str:
    """All of stdin as UTF-8."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        console.fail(f"stdin is not valid UTF-8 at byte {error.start}")
