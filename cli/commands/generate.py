"""`headway generate PROMPT`: the continuation of a text, as it comes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, grammar, options, target

if TYPE_CHECKING:
    from ...client import GenerationStream

Prompt = Annotated[str, typer.Argument(help="Text to continue; - reads it from stdin.")]
Count = Annotated[int | None, typer.Option("--n", help="Sequences to generate.", show_default=False)]
Logprobs = Annotated[
    int | None,
    typer.Option(metavar="K", help="Show log probabilities, with the K likeliest tokens' too.", show_default=False),
]
MinTokens = Annotated[int | None, typer.Option(help="Least new tokens.", show_default=False)]
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
    n: Count = None,
    min_tokens: MinTokens = None,
    logprobs: Logprobs = None,
    json_schema: grammar.JsonSchema = None,
    regex: grammar.Regex = None,
    choice: grammar.Choice = None,
    grammar_file: grammar.GrammarFile = None,
    as_json: options.AsJson = False,
    stats: Stats = False,
    timeout: options.Timeout = 600.0,
    address: options.Address = None,
) -> None:
    """Streams the text to stdout, each sequence under its number, or prints one document with `--json`."""
    if min_tokens is not None and max_tokens is not None and min_tokens > max_tokens:
        console.fail(f"--min-tokens {min_tokens} is above --max-tokens {max_tokens}")
    chosen = options.request_options(model, max_tokens, temperature, top_p, top_k, min_p, seed, stop)
    chosen.update({"n": n, "min_new_tokens": min_tokens, "logprobs": logprobs})
    chosen.update(grammar.read(json_schema, regex, choice, grammar_file, min_tokens))
    text = read_stdin() if prompt == "-" else prompt
    where = target.grpc_address(address)

    from ...client import Headway

    with console.told(where), Headway(where, timeout=timeout) as headway:
        if as_json:
            chosen["return_token_ids"] = True
            console.print_json(headway.generate(text, **chosen))
            return
        with headway.generate_stream(text, **chosen) as stream:
            show(stream, 1 if n is None else n)
        if stats:
            reasons = ", ".join(stream.finishes[index].reason for index in sorted(stream.finishes))
            print(f"{stream.usage}; ended by {reasons}", file=sys.stderr)


def show(stream: GenerationStream, count: int) -> None:
    """The stream's sequences on stdout as they come."""
    from ..sequences import SequencePrinter

    printer = SequencePrinter(count, stream.finishes)
    for delta in stream:
        printer.take(delta)
    printer.show()


def read_stdin() -> str:
    """All of stdin as UTF-8."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        console.fail(f"stdin is not valid UTF-8 at byte {error.start}")
