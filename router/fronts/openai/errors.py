"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, with our reason as the code."""

from __future__ import annotations

import math

import msgspec

from ....core.errors import HeadwayError, InvalidRequest, Overloaded, Unavailable


class BodyTooLarge(InvalidRequest):
    """As any request over a bound, with the status that HTTP has for bodies."""

    http_status = 413


class WrongContentType(InvalidRequest):
    """The body is announced as something else than JSON."""

    http_status = 415


class WrongMethod(InvalidRequest):
    """The path exists, with another method."""

    http_status = 405


def error_body(error: HeadwayError) -> bytes:
    if isinstance(error, Overloaded):
        kind = "rate_limit_error"
    else:
        kind = "server_error" if error.http_status >= 500 else "invalid_request_error"
    fields = {"message": error.message, "type": kind, "param": error.field or None, "code": error.reason}
    return msgspec.json.encode({"error": fields})


def error_headers(error: HeadwayError) -> list[tuple[bytes, bytes]]:
    """Retry-After in whole seconds where trying again makes sense."""
    if isinstance(error, Overloaded | Unavailable):
        seconds = max(1, math.ceil(error.retry_after_s or 1))
        return [(b"retry-after", str(seconds).encode())]
    return []
