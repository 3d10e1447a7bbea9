"""A streamed `/v1/completions` over one socket, as cheap as Python has it: the caller shares the cores with the server.

A piece of the answer is looked at for the mark of a token, and kept; only the usage at the end is parsed.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import NamedTuple, cast

TOKEN = (b'"choices":[{', b'"choices": [{')
USAGE = (b'"usage":{', b'"usage": {')


class Answer(NamedTuple):
    """Seconds by time.perf_counter(). `events` are those with choices; an answer that was cut short is not `whole`, and
    its `output_tokens` are its events."""

    begun: float
    first: float
    last: float
    output_tokens: int
    events: int
    whole: bool = True


class _Caller(asyncio.Protocol):
    """Writes one request and takes its answer to the end of the connection."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.pieces: list[bytes] = []
        self.first = self.last = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self.request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if TOKEN[0] in data or TOKEN[1] in data:
            self.last = time.perf_counter()
            self.first = self.first or self.last

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def request(body: dict[str, object]) -> bytes:
    """The bytes of a request."""
    data = json.dumps(body).encode()
    return b"".join([
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n",
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data),
        data,
    ])  # fmt: skip


async def ask(port: int, message: bytes, output_tokens: int, patience_s: float | None = None) -> Answer:
    """Sends `message` to the server on `port`, which has to bring so many tokens; what is not there after `patience_s`
    is not waited for. Raises RuntimeError when the answer is short or no answer."""
    begun = time.perf_counter()
    connect = asyncio.get_running_loop().create_connection(lambda: _Caller(message), "127.0.0.1", port)
    transport, caller = await connect
    try:
        await asyncio.wait([caller.ended], timeout=patience_s)
        whole = caller.ended.done()
    finally:
        transport.abort()
    return _answer(caller, begun, output_tokens, whole)


def _answer(caller: _Caller, begun: float, wanted: int, whole: bool) -> Answer:
    text = b"".join(caller.pieces)
    events = sum(map(text.count, TOKEN))
    if text and b" 200" not in text[: text.find(b"\r\n")]:
        raise RuntimeError(text[:2000].decode(errors="replace"))
    if not whole:
        return Answer(begun, caller.first, caller.last, events, events, whole=False)
    made = _output_tokens(text)
    if made != wanted:
        raise RuntimeError(f"{made} tokens came, and {wanted} were asked for: {text[-500:]!r}")
    return Answer(begun, caller.first, caller.last, made, events)


def _output_tokens(text: bytes) -> int:
    """By the last usage that the answer holds; 0 when there is none."""
    at = max(map(text.rfind, USAGE))
    if at < 0:
        return 0
    usage, _ = json.JSONDecoder().raw_decode(text[text.find(b"{", at) :].decode(errors="replace"))
    return int(usage["completion_tokens"])
