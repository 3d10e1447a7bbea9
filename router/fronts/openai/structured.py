"""What the output must look like, in OpenAI's words (response_format) and in vLLM's (structured_outputs, guided_*)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ....core.constraints import Grammar
from ....core.errors import InvalidRequest
from ...validation.limits import MAX_SCHEMA_BYTES
from .decode import check_neutral, decode
from .schema import STRUCTURED_NEUTRAL, CommonFields, ResponseFormat

_value: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
FORMATS = ("text", "json_object", "json_schema")

Found = tuple[str, Grammar]
"""The caller's field, and what it asks for."""


async def read_grammar(fields: CommonFields) -> Found | None:
    """The one form that the body asks for; None for none. Raises InvalidRequest for two of them."""
    found: Found | None = None
    async for one in _forms(fields):
        if found is not None:
            raise InvalidRequest(f"{one[0]} cannot be combined with {found[0]}; give one of them", field=one[0])
        found = one
    return found


async def _forms(fields: CommonFields) -> AsyncIterator[Found]:
    if fields.response_format is not None and (found := await _response_format(fields.response_format)):
        yield found
    outputs = fields.structured_outputs
    if outputs is not None:
        check_neutral(outputs, STRUCTURED_NEUTRAL, "structured_outputs.")
        if outputs.json_object:
            yield "structured_outputs.json_object", Grammar("json_object")
        async for found in _vllm("structured_outputs.", outputs, ""):
            yield found
    async for found in _vllm("", fields, "guided_"):
        yield found


async def _vllm(at: str, fields: Any, prefix: str) -> AsyncIterator[Found]:
    """The four forms that vLLM names alike in both places."""
    schema = await _schema(getattr(fields, f"{prefix}json"), f"{at}{prefix}json")
    if schema is not None:
        yield f"{at}{prefix}json", Grammar("json_schema", schema)
    if (regex := getattr(fields, f"{prefix}regex")) is not None:
        yield f"{at}{prefix}regex", Grammar("regex", regex)
    if (choices := getattr(fields, f"{prefix}choice")) is not None:
        yield f"{at}{prefix}choice", Grammar("choice", choices=tuple(choices))
    if (ebnf := getattr(fields, f"{prefix}grammar")) is not None:
        yield f"{at}{prefix}grammar", Grammar("ebnf", ebnf)


async def _response_format(wanted: ResponseFormat) -> Found | None:
    field = "response_format"
    if wanted.type not in FORMATS:
        got = "none" if wanted.type is None else repr(wanted.type[:40])
        raise InvalidRequest(f"{field}.type must be one of {', '.join(FORMATS)}; got {got}", field=f"{field}.type")
    if wanted.json_schema is not None and wanted.type != "json_schema":
        field = f"{field}.json_schema"
        raise InvalidRequest(f"{field} needs response_format.type to be json_schema", field=field)
    if wanted.type == "json_object":
        return field, Grammar("json_object")
    if wanted.type == "text":
        return None
    field = f"{field}.json_schema"
    if wanted.json_schema is None:
        raise InvalidRequest(f"{field} is missing", field=field)
    field = f"{field}.schema"
    schema = await _schema(wanted.json_schema.schema, field)
    if schema is None:
        raise InvalidRequest(f"{field} is missing", field=field)
    return field, Grammar("json_schema", schema)


async def _schema(raw: msgspec.Raw, field: str) -> str | None:
    """A schema as JSON text, exactly as it was written; None for null. The validator judges what it says."""
    text = bytes(raw)
    if text == b"null":
        return None
    if text[:1] == b'"':
        value: str = await decode(text, _value, field)
        return value
    if len(text) <= MAX_SCHEMA_BYTES:
        await decode(text, _value, field)
    return text.decode(errors="replace")
