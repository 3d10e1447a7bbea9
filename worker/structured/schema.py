"""JSON schemas before the matcher sees them: what it would take and not enforce is refused, or said in other words."""

from __future__ import annotations

import re
from typing import Any

from .limits import MAX_DEPTH

_BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_DATA = {"enum", "const", "default", "examples"}
_OPERATORS = {"&&", "--", "~~"}
_CONTROL = re.compile(r"(?:\\.|[^\]\\])*?(?:[\x00-\x1f]|\\[0c]|\\x[01]|\\u00[01])", re.DOTALL)


def prepared(schema: Any, depth: int = 0) -> Any:
    """The schema to enforce. Raises ValueError for what cannot be."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(schema, list):
        return [prepared(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    _check_least_properties(schema)
    return {key: _value(key, value, depth + 1) for key, value in schema.items()}


def _value(key: str, value: Any, depth: int) -> Any:
    if key in _DATA:
        return value
    if key == "pattern" and isinstance(value, str):
        return prepared_pattern(value)
    if key in _BY_NAME and isinstance(value, dict):
        if key == "patternProperties" and any(prepared_pattern(name) != name for name in value):
            raise ValueError("patternProperties: a class of excluded characters ([^...]) cannot be enforced in names")
        return {name: prepared(item, depth + 1) for name, item in value.items()}
    return prepared(value, depth)


def _check_least_properties(schema: dict[str, Any]) -> None:
    # Names that are not listed may come twice, and then count once.
    least, listed = schema.get("minProperties"), schema.get("properties")
    named = len(listed) if isinstance(listed, dict) else 0
    if isinstance(least, int) and least > max(1, named) and schema.get("additionalProperties") is not False:
        raise ValueError(f"minProperties = {least} cannot be enforced above the {named} names in properties")


def prepared_pattern(pattern: str) -> str:
    """The pattern, as ECMAScript reads it, in words that are enforced exactly.

    llguidance (1.9) lets a class that has all control characters have quote and backslash too, even where it excludes
    them: so U+0000 is left out of every class of excluded characters. Raises ValueError where that is no help.
    """
    parts: list[str] = []
    at, inside = 0, False
    while at < len(pattern):
        size = 2 if pattern[at] == "\\" or (inside and pattern[at : at + 2] in _OPERATORS) else 1
        part = pattern[at : at + size]
        at += size
        if inside:
            inside = part != "]"
            # Nested classes and operators on them are Rust's.
            part = "".join("\\" + letter for letter in part) if part == "[" or part in _OPERATORS else part
        elif part == "[":
            inside = True
            if pattern.startswith("^", at):
                at += 1
                part = "[^\\x00"
            elif _CONTROL.match(pattern, at):
                raise ValueError("pattern: a class with control characters cannot be enforced")
            if pattern.startswith("]", at):
                raise ValueError("pattern: [] and [^] are not supported")
        parts.append(part)
    return "".join(parts)
