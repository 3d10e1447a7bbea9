"""The flags that say what the output must look like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console

if TYPE_CHECKING:
    from ..client.options import GenerateOptions

JsonSchema = Annotated[
    str | None,
    typer.Option(metavar="FILE|JSON", help="The output is an instance of this JSON schema.", show_default=False),
]
Regex = Annotated[str | None, typer.Option(help="The whole output matches this expression.", show_default=False)]
Choice = Annotated[
    list[str] | None, typer.Option(help="The output is one of these; may be repeated.", show_default=False)
]
GrammarFile = Annotated[
    str | None,
    typer.Option("--grammar", metavar="FILE", help="The output is of this grammar: Lark or GBNF.", show_default=False),
]


def read(
    json_schema: str | None, regex: str | None, choice: list[str] | None, grammar: str | None, min_tokens: int | None
) -> GenerateOptions:
    """The client's option of the one flag that was given. Ends the command when several were, or one cannot be read."""
    flags = {"--json-schema": json_schema, "--regex": regex, "--choice": choice or None, "--grammar": grammar}
    given = [flag for flag, value in flags.items() if value is not None]
    if len(given) > 1:
        console.fail(f"{' and '.join(given)} exclude each other", "Give one of them.")
    if given and min_tokens:
        console.fail(f"--min-tokens and {given[0]} exclude each other: {given[0]} says where the output ends")
    if json_schema is not None:
        return {"json_schema": _schema(json_schema)}
    if grammar is not None:
        return {"ebnf": _file("--grammar", grammar)}
    return {"regex": regex, "choice": choice or None}


def _schema(given: str) -> str:
    """JSON text, itself or a file's."""
    import msgspec

    inline = given.lstrip().startswith("{") or given.strip() in ("true", "false")
    text = given if inline else _file("--json-schema", given)
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        console.fail(f"--json-schema: {'the text' if inline else given} is no JSON: {error}")
    return text


def _file(flag: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        console.fail(f"{flag}: {path} is not valid UTF-8 at byte {error.start}")
    except (OSError, ValueError) as error:
        hint = "A schema in place begins with {." if flag == "--json-schema" else ""
        why = error.strerror if isinstance(error, OSError) else error
        console.fail(f"{flag}: cannot read {path!r}: {why}", hint)
