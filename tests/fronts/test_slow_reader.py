"""A caller that does not read holds up its own request, and no memory beyond the buffers of its connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from headway.router.types import EngineRequest, TokenChunk
from headway.tests.fronts.support.scripted_replicas import chunk, until
from headway.tests.fronts.support.serving import Fronts

# Events of some 200 bytes: several times what the buffers of a connection on one machine hold.
TOKENS = 400_000


async def stays(value: Callable[[], int]) -> int:
    """The value, once it has not changed for a while."""
    before = -1
    while before != value():
        before = value()
        await asyncio.sleep(0.3)
    return before


async def test_http_tokens_wait_for_a_reader(fronts: Fronts) -> None:
    made = 0

    def script(request: EngineRequest) -> Iterator[TokenChunk]:
        nonlocal made
        for made in range(1, TOKENS + 1):
            yield chunk(100 + made % 200)

    fronts.dispatcher.script = script
    address = urlsplit(fronts.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
    body = json.dumps({"prompt": "def", "max_tokens": 100, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert b" 200 " in await reader.readline()

    held = await stays(lambda: made)
    assert held < TOKENS / 2
    for _ in range(TOKENS):
        await reader.readline()
        if made > held:
            break
    assert made > held
    writer.close()
    await until(lambda: fronts.dispatcher.closed_early != [])
