"""JSON schemas of every supported kind, made at random from a seed, small enough that outputs come to an end."""

import random
import re
from datetime import datetime
from typing import Any

import jsonschema

Schema = dict[str, Any]

NAMES = ["id", "name", "größe", "名前", "a b", 'quo"te', "back\\slash", "😀", "x-y", "", "_1"]
PATTERNS = ["^[a-z]{2,4}$", "^(ab|cd)+$", r"^\d{3}-\d{2}$", "^[A-F0-9]{1,8}$", "^x?y{1,3}z?$", '^[^a-y"\\\\]{1,3}$']
FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname", "duration"]

CHECKER = jsonschema.FormatChecker(["date", "uuid", "ipv4", "ipv6", "email"])


@CHECKER.checks("date-time")
def _date_time(value: object) -> bool:
    # The leap second of RFC 3339 is none of Python's.
    return datetime.fromisoformat(str(value).replace(":60", ":59", 1).upper()) is not None


@CHECKER.checks("time")
def _time(value: object) -> bool:
    return re.fullmatch(r"\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)", str(value)) is not None


@CHECKER.checks("hostname")
def _hostname(value: object) -> bool:
    labels = str(value).split(".")
    return all(re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?", label) for label in labels)


@CHECKER.checks("duration")
def _duration(value: object) -> bool:
    return re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", str(value)) is not None


def validate(instance: object, schema: Schema) -> None:
    """Raises jsonschema.ValidationError."""
    jsonschema.Draft202012Validator(schema, format_checker=CHECKER).validate(instance)


def schema_of(seed: int) -> Schema:
    """Every tenth is recursive."""
    draw = random.Random(seed)
    return _recursive(draw) if seed % 10 == 0 else _any(draw, 3)


def _recursive(draw: random.Random) -> Schema:
    node = {
        "type": "object",
        "properties": {"value": _leaf(draw), "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    }
    tree = {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}
    start = draw.choice(["node", "tree"])
    return {"$defs": {"node": node, "tree": tree}, "$ref": f"#/$defs/{start}"}


def _any(draw: random.Random, depth: int) -> Schema:
    kinds = [_leaf] if depth == 0 else [_object, _object, _array, _tuple, _union, _all_of, _map, _leaf]
    kind = draw.choice(kinds)
    return kind(draw) if kind is _leaf else kind(draw, depth - 1)  # type: ignore[operator]


def _leaf(draw: random.Random) -> Schema:
    low = draw.randint(-50, 50)
    span = draw.randint(0, 500)
    return draw.choice(
        [
            {"type": "string", "maxLength": draw.randint(0, 10)},
            {"type": "string", "minLength": 2, "maxLength": draw.randint(2, 8)},
            {"type": "string", "pattern": draw.choice(PATTERNS), "maxLength": 12},
            {"type": "string", "format": draw.choice(FORMATS)},
            {"type": "integer", "minimum": low, "maximum": low + span},
            {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + span + 2},
            {"type": "integer", "minimum": 0, "maximum": 1000, "multipleOf": draw.choice([2, 5, 7])},
            {"type": "number", "minimum": low, "maximum": low + span + 0.5},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
            {"enum": draw.sample(["red", "grün", 7, None, True, [1, "x"], {"k": 0}, "\u2028"], 3)},
            {"const": draw.choice(["fixed", 0, [None], {"a": {"b": []}}])},
        ]
    )


def _object(draw: random.Random, depth: int) -> Schema:
    names = draw.sample(NAMES, draw.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: _any(draw, depth) for name in names},
        "required": draw.sample(names, draw.randint(0, len(names))),
        "additionalProperties": False,
    }


def _array(draw: random.Random, depth: int) -> Schema:
    least = draw.randint(0, 2)
    return {"type": "array", "items": _any(draw, depth), "minItems": least, "maxItems": least + draw.randint(0, 2)}


def _tuple(draw: random.Random, depth: int) -> Schema:
    return {"type": "array", "prefixItems": [_any(draw, depth) for _ in range(2)], "items": False, "minItems": 2}


def _union(draw: random.Random, depth: int) -> Schema:
    if draw.random() < 0.4:
        return {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 3, "maximum": 99}, {"type": "null"}]}
    return {"anyOf": [_any(draw, depth) for _ in range(draw.randint(2, 3))]}


def _all_of(draw: random.Random, depth: int) -> Schema:
    first, second = draw.sample(NAMES, 2)
    return {
        "allOf": [
            {"type": "object", "properties": {first: _any(draw, depth)}, "required": [first]},
            {"type": "object", "properties": {second: {"type": "boolean"}}, "required": [second]},
        ],
        "properties": {first: {}, second: {}},
        "additionalProperties": False,
    }


def _map(draw: random.Random, depth: int) -> Schema:
    return {
        "type": "object",
        "patternProperties": {"^[a-c]{1,2}$": _leaf(draw), "^[x-z]$": _leaf(draw)},
        "additionalProperties": False,
        "maxProperties": 2,
    }
