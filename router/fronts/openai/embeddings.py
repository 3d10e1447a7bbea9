"""/v1/embeddings."""

from __future__ import annotations

import asyncio
import base64

import msgspec
import numpy as np
from starlette.types import Receive, Scope, Send

from ...embedding import Embedded, EmbeddingHandler
from ...validation.embedding import UserEmbedding
from .asgi import read_json_body, send_error, while_connected
from .embedding_requests import read_embedding
from .endpoint import REQUEST_ID, deadline_of, request_id_of

Headers = list[tuple[bytes, bytes]]


class EmbeddingsEndpoint:
    """An ASGI app. The request's id comes from and goes back in the x-request-id header."""

    def __init__(self, handler: EmbeddingHandler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = []
        try:
            request_id = request_id_of(scope)
            headers.append((REQUEST_ID.encode(), request_id.encode()))
            deadline = deadline_of(scope)
            request, packed = await read_embedding(await read_json_body(scope, receive), request_id)
        except Exception as error:
            await send_error(send, error, headers)
            return
        await while_connected(self._respond(request, packed, deadline, send, headers), receive)

    async def _respond(
        self, request: UserEmbedding, packed: bool, deadline: float | None, send: Send, headers: Headers
    ) -> None:
        try:
            found = await self._handler.run(request, front="http", method="embeddings", deadline=deadline)
        except Exception as error:
            await send_error(send, error, headers)
            return
        await send_embeddings(send, found, packed, headers)


async def send_embeddings(send: Send, found: Embedded, packed: bool, headers: Headers) -> None:
    """The answer in pieces, one vector each: a long list as one piece would hold the event loop for seconds."""
    kind = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": 200, "headers": [kind, *headers]})
    before = b'{"object":"list","data":['
    for index, vector in enumerate(found.vectors):
        item = {"object": "embedding", "index": index, "embedding": _shown(vector, packed)}
        await send({"type": "http.response.body", "body": before + msgspec.json.encode(item), "more_body": True})
        before = b","
        await asyncio.sleep(0)  # sending alone need not wait
    usage = {
        "prompt_tokens": found.prompt_tokens,
        "total_tokens": found.prompt_tokens,
        "prompt_tokens_details": {"cached_tokens": found.cached_tokens},
    }
    rest = msgspec.json.encode({"model": found.model, "usage": usage})
    await send({"type": "http.response.body", "body": b"]," + rest[1:]})


def _shown(vector: bytes, packed: bool) -> str | list[float]:
    if packed:
        return base64.b64encode(vector).decode()
    values: list[float] = np.frombuffer(vector, "<f4").tolist()
    return values
