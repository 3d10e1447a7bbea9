"""The two endpoints that generate: one class, given how to read a body and how to write the answer."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from ....core.errors import Internal, InvalidRequest
from ....core.servers import as_status
from ...events import Delta, Event, Finished, Started, Usage
from ...handler import RequestHandler
from ...validation.fields import check_request_id
from ...validation.request import UserRequest
from .asgi import (
    Headers,
    end_events,
    header,
    read_json_body,
    send_error,
    send_event,
    send_json,
    start_events,
    while_connected,
)
from .errors import error_body
from .replies import Reply
from .requests import Wanted

REQUEST_ID = "x-request-id"
REQUEST_TIMEOUT = "x-request-timeout"
MAX_TIMEOUT_S = 86_400.0


class GenerateEndpoint:
    """An ASGI app. The request's id comes from and goes back in the x-request-id header."""

    def __init__(
        self,
        handler: RequestHandler,
        read: Callable[[bytes, str], Awaitable[tuple[UserRequest, Wanted]]],
        reply: type[Reply],
        method: str,
    ) -> None:
        self._handler = handler
        self._read = read
        self._reply = reply
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = []
        try:
            request_id = request_id_of(scope)
            headers.append((REQUEST_ID.encode(), request_id.encode()))
            deadline = deadline_of(scope)
            request, wanted = await self._read(await read_json_body(scope, receive), request_id)
        except Exception as error:
            await send_error(send, error, headers)
            return
        await while_connected(self._respond(request, wanted, deadline, send, headers), receive)

    async def _respond(
        self, request: UserRequest, wanted: Wanted, deadline: float | None, send: Send, headers: Headers
    ) -> None:
        events = self._handler.run(request, front="http", method=self._method, deadline=deadline)
        async with aclosing(events):
            try:
                # Before the first token every failure still has its own HTTP status.
                started = await anext(events)
                if not isinstance(started, Started):
                    raise Internal("the first event is not Started")
                reply = self._reply(started, wanted)
                if not wanted.stream:
                    await self._whole(events, reply, send, headers)
                    return
            except Exception as error:
                await send_error(send, error, headers)
                return
            await self._stream(events, reply, send, headers)

    async def _whole(self, events: AsyncGenerator[Event], reply: Reply, send: Send, headers: Headers) -> None:
        deltas: list[Delta] = []
        finished: list[Finished] = []
        async for event in events:
            if isinstance(event, Delta):
                deltas.append(event)
            elif isinstance(event, Finished):
                finished.append(event)
            elif isinstance(event, Usage):
                await send_json(send, reply.whole(deltas, finished, event), headers=headers)

    async def _stream(self, events: AsyncGenerator[Event], reply: Reply, send: Send, headers: Headers) -> None:
        await start_events(send, headers)
        held = b""  # of what follows at once, so that it goes out with that
        try:
            await send_event(send, reply.opening())
            async for event in events:
                if isinstance(event, Delta):
                    await send_event(send, reply.delta(event))
                elif isinstance(event, Finished):
                    held = reply.finished(event)
                    if reply.wanted.n > 1:
                        await send_event(send, held)
                        held = b""
                elif isinstance(event, Usage):
                    held += reply.closing(event)
        except Exception as error:
            # The status is out already: the error is the stream's last event, and no [DONE] follows it.
            held += b"data: " + error_body(as_status(error)) + b"\n\n"
        await end_events(send, held)


def request_id_of(scope: Scope) -> str:
    """The caller's id, checked before it goes into a header of ours, or a new one."""
    given = header(scope, REQUEST_ID.encode())
    check_request_id(given, REQUEST_ID)
    return given or uuid.uuid4().hex


def deadline_of(scope: Scope) -> float | None:
    """When the caller's time ends, on the loop's clock: so many seconds after now as x-request-timeout says.

    A reply that the caller no longer waits for need not be made; gRPC has deadlines for it, HTTP has nothing.
    """
    given = header(scope, REQUEST_TIMEOUT.encode())
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT_S:
        what = f"{REQUEST_TIMEOUT} must be seconds, above 0 and at most {MAX_TIMEOUT_S:g}, got {given[:40]!r}"
        raise InvalidRequest(what, field=REQUEST_TIMEOUT)
    return asyncio.get_running_loop().time() + seconds
