"""A streamed `/v1/completions` over one socket, as cheap as Python has it: the caller shares the cores with the server.

A piece of the answer is looked at for what makes it one with a token, and kept; only the last event is parsed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

TOKEN = b'"choices":[{'
TOKEN_SPACED = b'"choices": [{'
USAGE = (b'"usage":{', b'"usage": {')
STREAMED = {"temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}


class Answer(NamedTuple):
    """Seconds by time.perf_counter(); `events` are those with choices, `pieces` what the socket gave at a time."""

    begun: float
    first: float
    last: float
    output_tokens: int
    events: int
    pieces: int


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
        if TOKEN in data or TOKEN_SPACED in data:
            self.last = time.perf_counter()
            self.first = self.first or self.last

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def ask(port: int, body: Mapping[str, Any]) -> Answer:
    """One request to the server on `port`. Raises RuntimeError when the answer is short or no answer."""
    data = json.dumps({**STREAMED, **body}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    begun = time.perf_counter()
    request = head.encode() + data
    transport, caller = await asyncio.get_running_loop().create_connection(lambda: _Caller(request), "127.0.0.1", port)
    try:
        await caller.ended
    finally:
        transport.close()
    return _answer(caller, begun, body["max_tokens"])


def _answer(caller: _Caller, begun: float, wanted: int) -> Answer:
    text = b"".join(caller.pieces)
    status = text[: text.find(b"\r\n")]
    if b" 200" not in status:
        raise RuntimeError(text[:2000].decode(errors="replace"))
    made = _output_tokens(text)
    if made != wanted:
        raise RuntimeError(f"{made} tokens came, and {wanted} were asked for: {text[-500:]!r}")
    events = text.count(TOKEN) + text.count(TOKEN_SPACED)
    return Answer(begun, caller.first, caller.last, made, events, len(caller.pieces))


def _output_tokens(text: bytes) -> int:
    """By the last usage that the answer holds; 0 when there is none."""
    at = max(text.rfind(mark) for mark in USAGE)
    if at < 0:
        return 0
    usage, _ = json.JSONDecoder().raw_decode(text[text.find(b"{", at) :].decode(errors="replace"))
    return int(usage["completion_tokens"])
