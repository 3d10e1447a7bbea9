"""The two endpoints that generate: one class, given how to read a body and how to write the answer."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from ....core.errors import Internal
from ....core.servers import as_status
from ...events import Delta, Event, Finished, Started
from ...handler import RequestHandler
from ...validation.fields import check_request_id
from ...validation.request import UserRequest
from .asgi import end_events, header, read_json_body, send_error, send_event, send_json, start_events, while_connected
from .errors import error_body
from .replies import Reply
from .requests import Wanted

REQUEST_ID = "x-request-id"


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
            request, wanted = await self._read(await read_json_body(scope, receive), request_id)
        except Exception as error:
            await send_error(send, error, headers)
            return
        await while_connected(self._respond(request, wanted, send, headers), receive)

    async def _respond(
        self, request: UserRequest, wanted: Wanted, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        events = self._handler.run(request, front="http", method=self._method)
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

    async def _whole(
        self, events: AsyncGenerator[Event], reply: Reply, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        deltas: list[Delta] = []
        async for event in events:
            if isinstance(event, Delta):
                deltas.append(event)
            elif isinstance(event, Finished):
                await send_json(send, reply.whole(deltas, event), headers=headers)

    async def _stream(
        self, events: AsyncGenerator[Event], reply: Reply, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        await start_events(send, headers)
        try:
            if opening := reply.opening():
                await send_event(send, opening)
            async for event in events:
                if isinstance(event, Delta):
                    await send_event(send, reply.delta(event))
                elif isinstance(event, Finished):
                    await send_event(send, reply.closing(event))
        except Exception as error:
            # The status is out already: the error is the stream's last event, and no [DONE] follows it.
            await send_event(send, b"data: " + error_body(as_status(error)) + b"\n\n")
        await end_events(send)


def request_id_of(scope: Scope) -> str:
    """The caller's id, checked before it goes into a header of ours, or a new one."""
    given = header(scope, REQUEST_ID.encode())
    check_request_id(given, REQUEST_ID)
    return given or uuid.uuid4().hex
