"""From the bytes of a body to its struct, with errors that say which field is wrong and how."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import msgspec

from ....core.errors import InvalidRequest
from .schema import Neutral

# "Expected `int`, got `str` - at `$.messages[0].role`"
_ERROR = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_SURROGATE = re.compile("[\udc80-\udcff]")
INLINE_BYTES = 64 * 1024


async def decode(body: bytes, decoder: msgspec.json.Decoder[Any], at: str = "") -> Any:
    """The body, or the part of it at path `at`.

    Raises InvalidRequest for what is no JSON, no UTF-8, an unknown field, or a value of the wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _shape_error(str(error), at) from None
    except UnicodeDecodeError:
        pass
    except (msgspec.DecodeError, RecursionError) as error:
        # Broken text is told as such even where it also breaks the JSON.
        if _is_utf8(body):
            raise InvalidRequest(f"{at or 'the body'} is malformed JSON: {error}", field=at) from None
    # Finding the field means reading the body a second, lenient time: in a thread when that is slow.
    if len(body) <= INLINE_BYTES:
        raise _not_utf8(body, at)
    raise await asyncio.to_thread(_not_utf8, body, at)


def _shape_error(text: str, at: str) -> InvalidRequest:
    """msgspec's words with its path turned into our field."""
    match = _ERROR.match(text)
    what, path = (match["what"], match["path"] or "") if match else (text, "")
    field = at + path
    if unknown := _UNKNOWN.match(what):
        name = unknown["name"][:100]
        field = f"{field}.{name}" if field else name
        return InvalidRequest(f"{field} is not a field that this server knows", field=field)
    return InvalidRequest(f"{field or 'the body'}: {what[:1].lower()}{what[1:]}", field=field)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(body: bytes, at: str) -> InvalidRequest:
    """The refusal of bytes that are not UTF-8, naming the field that holds them when the rest is JSON."""
    try:
        field = _broken_path(json.loads(body.decode("utf-8", "surrogateescape")), at) or at
    except (ValueError, RecursionError):
        field = at
    return InvalidRequest(f"{field or 'the body'} is not valid UTF-8", field=field)


def _broken_path(value: Any, path: str) -> str | None:
    """Path of the first string that holds an undecodable byte; None when none does."""
    if isinstance(value, str):
        return path if _SURROGATE.search(value) else None
    if isinstance(value, dict):
        # A name that is broken itself cannot be told.
        steps = [(f"{path}.{key}" if path else key, item) for key, item in value.items() if not _SURROGATE.search(key)]
    elif isinstance(value, list):
        steps = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return None
    return next((found for step, item in steps if (found := _broken_path(item, step)) is not None), None)


def check_neutral(value: msgspec.Struct, neutral: Neutral, at: str = "") -> None:
    """Refuses, by name, a feature that is not offered; a value that changes nothing passes."""
    for name, harmless in neutral.items():
        given = getattr(value, name)
        # 1 == True in Python, and not in JSON.
        if given is None or any(type(given) is type(one) and given == one for one in harmless):
            continue
        field = at + name
        raise InvalidRequest(f"{field} is not supported by this server; leave it out", field=field)
