"""Grammars of requests in the notation of llguidance."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, grammar_from

from ...core.constraints import Grammar
from .limits import MAX_DEPTH

# White space that people and models write, without the endless kind that a model may fall into.
WHITESPACE = r"[ ]?|\n[ \t]{0,32}"


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
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(schema, bool):
        text = "{}" if schema else '{"anyOf": []}'
    elif not isinstance(schema, dict):
        raise ValueError("a JSON schema is an object, true or false")
    _check(schema, 0)
    # Whoever asks for it may have other white space, but nothing of a schema is ignored.
    return LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_pattern": WHITESPACE}, overrides={"lenient": False, "coerce_one_of": False}
    )


def _check(node: Any, depth: int) -> None:
    """Raises ValueError for what the matcher would take and not enforce."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(node, list):
        for item in node:
            _check(item, depth + 1)
    elif isinstance(node, dict):
        _check_properties(node)
        for item in node.values():
            _check(item, depth + 1)


def _check_properties(schema: dict[str, Any]) -> None:
    # Names that are not listed may come twice, and then count once.
    least, listed = schema.get("minProperties"), schema.get("properties")
    named = len(listed) if isinstance(listed, dict) else 0
    if isinstance(least, int) and least > max(1, named) and schema.get("additionalProperties") is not False:
        raise ValueError(f"minProperties = {least} cannot be enforced above the {named} names in properties")


def _ebnf(text: str) -> str:
    try:
        return grammar_from("ebnf", text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(str(error).removeprefix("Failed to convert the grammar from GBNF to Lark: ")) from None
