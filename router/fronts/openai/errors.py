"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, with our reason as the code."""

from __future__ import annotations

import math

import msgspec

from ....core.errors import HeadwayError, InvalidRequest, Overloaded, Unavailable


class HttpRefusal(Exception):
    """A request over a bound for which HTTP has a status of its own. The tree's verdict on it stays the same."""

    def __init__(self, status: int, error: InvalidRequest) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


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
