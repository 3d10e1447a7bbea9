"""The little of ASGI that the endpoints need, without a layer between them and the server: this is a hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from ....core.errors import Cancelled, InvalidRequest
from ....core.servers import as_status
from ...validation.limits import MAX_REQUEST_BYTES
from .errors import HttpRefusal, error_body, error_headers

Headers = Sequence[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> str:
    """The first header of that name (in lower case); empty when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises HttpRefusal, and Cancelled when the client leaves in the middle."""
    media = header(scope, b"content-type").partition(";")[0].strip().lower()
    if media not in ("application/json", ""):
        what = f"content-type must be application/json, got {media[:100]!r}"
        raise HttpRefusal(415, InvalidRequest(what, field="content-type"))
    announced = header(scope, b"content-length")
    if announced.isdigit() and int(announced) > MAX_REQUEST_BYTES:
        raise _too_large(announced)
    pieces: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client left before its request was complete")
        pieces.append(message.get("body", b""))
        length += len(pieces[-1])
        if length > MAX_REQUEST_BYTES:
            raise _too_large(f"more than {MAX_REQUEST_BYTES}")
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large(size: str) -> HttpRefusal:
    return HttpRefusal(413, InvalidRequest(f"the request has {size} bytes; at most {MAX_REQUEST_BYTES}"))


async def send_json(send: Send, body: bytes, *, status: int = 200, headers: Headers = ()) -> None:
    length = str(len(body)).encode()
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", b"application/json"), (b"content-length", length), *headers],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: Exception, headers: Headers = ()) -> None:
    """Any exception as a caller may see it."""
    shown = error.error if isinstance(error, HttpRefusal) else as_status(error)
    status = error.status if isinstance(error, HttpRefusal) else shown.http_status
    await send_json(send, error_body(shown), status=status, headers=[*headers, *error_headers(shown)])


async def start_events(send: Send, headers: Headers) -> None:
    """Begins a stream of server-sent events."""
    kind = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": [*kind, *headers]})


async def send_event(send: Send, data: bytes) -> None:
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def end_events(send: Send, data: bytes) -> None:
    """The last ones, and the end."""
    await send({"type": "http.response.body", "body": data})


async def while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Runs `work` to its end, or cancels it when the client has gone: nobody may keep a replica busy for no one."""
    respond = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((respond, watch), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (watch, respond):
            task.cancel()
        _, outcome = await asyncio.gather(watch, respond, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
