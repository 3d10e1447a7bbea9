"""What an output must look like: a typed value, or the option of the same meaning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..core.errors import InvalidRequest
from ..proto.headway.v1 import sampling_pb2
from .errors import why


class JsonSchema(msgspec.Struct, frozen=True):
    """An instance of a JSON schema: a mapping, True or False, or JSON text."""

    schema: Mapping[str, Any] | bool | str


class JsonObject(msgspec.Struct, frozen=True):
    """Any JSON object."""


class Regex(msgspec.Struct, frozen=True):
    """A text that the expression matches as a whole."""

    pattern: str


class Choice(msgspec.Struct, frozen=True):
    """One of the texts; a plain string is a choice of one."""

    texts: str | Sequence[str]


class Ebnf(msgspec.Struct, frozen=True):
    """A text of a grammar in Lark's notation, or in GBNF."""

    text: str


Grammar = JsonSchema | JsonObject | Regex | Choice | Ebnf

# Option -> the typed value that it stands for.
FORMS: dict[str, Callable[[Any], Grammar | None]] = {
    "json_schema": JsonSchema,
    "json_object": lambda wanted: JsonObject() if wanted else None,
    "regex": Regex,
    "choice": Choice,
    "ebnf": Ebnf,
}
OPTIONS = ("grammar", *FORMS)


def chosen(options: Mapping[str, Any]) -> sampling_pb2.Grammar | None:
    """The message of the one grammar among `options`, None when there is none. Raises InvalidRequest for several."""
    found: dict[str, Any] = {}
    for name in OPTIONS:
        value = options.get(name)
        if value is not None and name in FORMS:
            value = FORMS[name](value)
        if value is not None:
            found[name] = value
    if len(found) > 1:
        message = f"{' and '.join(found)} are set; an output has at most one grammar"
        raise InvalidRequest(message, field="constraints.grammar")
    return to_message(*found.values()) if found else None


def to_message(grammar: Grammar) -> sampling_pb2.Grammar:
    """The message of a typed value. Raises InvalidRequest naming the form for what no message can hold."""
    form = "grammar"
    try:
        match grammar:
            case JsonSchema(schema):
                form = "json_schema"
                text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
                return sampling_pb2.Grammar(json_schema=text)
            case JsonObject():
                return sampling_pb2.Grammar(json_object=sampling_pb2.JsonObject())
            case Regex(pattern):
                form = "regex"
                return sampling_pb2.Grammar(regex=pattern)
            case Choice(texts):
                form = "choice"
                texts = [texts] if isinstance(texts, str) else texts
                return sampling_pb2.Grammar(choice=sampling_pb2.Choice(texts=texts))
            case Ebnf(text):
                form = "ebnf"
                return sampling_pb2.Grammar(ebnf=text)
    except (ValueError, TypeError, RecursionError) as error:
        path = f"constraints.grammar.{'choice.texts' if form == 'choice' else form}"
        raise InvalidRequest(f"{form} {why(error)}", field=path) from None
    kinds = ", ".join(kind.__name__ for kind in (JsonSchema, JsonObject, Regex, Choice, Ebnf))
    raise InvalidRequest(f"grammar must be one of {kinds}; got {grammar!r}", field="constraints.grammar")
