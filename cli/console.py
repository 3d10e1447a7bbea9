"""What every verb does at the terminal: errors with what to do next, one JSON document, text as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from ..core.errors import HeadwayError


def fail(message: str, next_step: str = "", code: int = 1) -> NoReturn:
    """Ends the command: the message on stderr, and below it what to do."""
    print(f"headway: {message}", file=sys.stderr)
    if next_step:
        print(f"  {next_step}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(document: Any) -> None:
    """One JSON document on stdout, indented; structs and enums are allowed in it."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    sys.stdout.flush()


def write(text: str) -> None:
    """Text on stdout at once. A reader that has left ends the command quietly (typer handles EPIPE)."""
    sys.stdout.write(text)
    sys.stdout.flush()


def next_step(error: HeadwayError, address: str) -> str:
    """What a user of the command line can do about an error."""
    from ..core import errors

    if isinstance(error, errors.Unavailable) and "no answer from" in error.message:
        return f"Is the cluster at {address} up? See `headway status`, or start one with `headway up`."
    if error.retry_after_s is not None:
        return f"Try again in {error.retry_after_s:.3g} s."
    if isinstance(error, errors.Unavailable):
        return "See `headway status` for the replicas' state."
    if isinstance(error, errors.NotFound) and error.field.endswith("model"):
        return "See `headway models` for what is served."
    if isinstance(error, errors.DeadlineExceeded):
        return "Give it more time with --timeout SECONDS, or fewer tokens with --max-tokens."
    return ""


@contextmanager
def told(address: str) -> Iterator[None]:
    """Ends the command with the message and the next step when what runs inside raises an error of the tree."""
    from ..core.errors import HeadwayError

    try:
        yield
    except HeadwayError as error:
        fail(error.message, next_step(error, address))
