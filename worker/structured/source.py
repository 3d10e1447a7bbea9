"""Grammars of requests in the notation of llguidance."""

from __future__ import annotations

import json
import re

from llguidance import LLMatcher, grammar_from

from ...core.constraints import Grammar
from .schema import prepared

# White space that people and models write, without the endless kind that a model may fall into.
WHITESPACE = r"[ ]?|\n[ \t]{0,32}"
# What llguidance says of its own state, on lines of their own.
_NOTES = re.compile(r"(?<=\S)\n<(?:state|non-verbose/)>.*", re.DOTALL)
# The matcher's word for a place that nothing leads on from, and that is no end.
_DEAD_END = "NoExtensionBias"


def fault_of(matcher: LLMatcher) -> str:
    """What is wrong with the matcher, for whoever wrote its grammar; "" while nothing is."""
    fault = _NOTES.sub("", matcher.get_error())
    return "no token can come next: no output is of this grammar" if fault == _DEAD_END else fault


def to_source(grammar: Grammar) -> str:
    """The grammar as a matcher takes it. Raises ValueError for what cannot be enforced; a matcher refuses the rest."""
    match grammar.kind:
        case "json_schema":
            return _json_schema(grammar.text)
        case "json_object":
            return _json_schema('{"type": "object"}')
        case "choice":
            return grammar_from("choice", json.dumps(grammar.choices))
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case "ebnf":
            return _ebnf(grammar.text)
        case kind:
            raise ValueError(f"no such form of grammar: {kind}")


def _json_schema(text: str) -> str:
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(schema, bool):
        schema = {} if schema else {"anyOf": []}
    elif not isinstance(schema, dict):
        raise ValueError("a JSON schema is an object, true or false")
    # Whoever asks for it may have other white space, but nothing of a schema is ignored.
    return LLMatcher.grammar_from_json_schema(
        json.dumps(prepared(schema)),
        defaults={"whitespace_pattern": WHITESPACE},
        overrides={"lenient": False, "coerce_one_of": False},
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _ebnf(text: str) -> str:
    try:
        return grammar_from("ebnf", text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(str(error).removeprefix("Failed to convert the grammar from GBNF to Lark: ")) from None
