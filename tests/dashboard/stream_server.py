"""The controller's HTTP contract with the page, spoken by a server that a test scripts: real messages over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from headway.controller.dashboard.page import Page
from headway.proto.headway.v1 import admin_pb2


class StreamServer:
    """Sends `snapshot` to each new watcher, then whatever is published; keeps every change it is asked for."""

    def __init__(self) -> None:
        self.snapshot = admin_pb2.WatchClusterResponse(version=1, snapshot=True)
        self.is_down = False
        self.refusal: str | None = None
        self.posts: list[tuple[str, str, Any]] = []
        self.connections = 0
        self.url = ""
        self._watchers: set[asyncio.Queue[str | None]] = set()

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def publish(self, message: admin_pb2.WatchClusterResponse) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(event(message))

    def break_streams(self) -> None:
        """Ends every open stream, as a controller that dies does; new ones get 503 until `is_down` is false."""
        self.is_down = True
        self.end_streams()

    def end_streams(self) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(None)

    async def watch(self, request: Request) -> Response:
        if self.is_down:
            return Response("down", status_code=503)
        self.connections += 1
        return StreamingResponse(self._events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _events(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield event(self.snapshot)
            while (data := await queue.get()) is not None:
                yield data
        finally:
            self._watchers.discard(queue)

    async def change(self, request: Request) -> Response:
        self.posts.append((request.url.path, request.headers["content-type"], await request.json()))
        if self.refusal is not None:
            return JSONResponse({"error": {"message": self.refusal}}, status_code=409)
        answer = admin_pb2.DrainReplicaResponse(
            effect=admin_pb2.Effect(version=9, steps=["the controller's own words"])
        )
        return JSONResponse(json_format.MessageToDict(answer))

    def app(self) -> Starlette:
        pages = [
            Route("/api/watch", self.watch),
            Route("/api/{change}", self.change, methods=["POST"]),
            Mount("/", Page()),
        ]
        # The same once more below a prefix, as behind an ingress.
        return Starlette(routes=[Mount("/ops/headway", routes=pages), *pages])


def event(message: admin_pb2.WatchClusterResponse) -> str:
    return f"data: {json.dumps(json_format.MessageToDict(message))}\n\n"


@asynccontextmanager
async def serving(server: StreamServer) -> AsyncIterator[StreamServer]:
    """Serves on a free port of the loopback until the block ends."""
    config = uvicorn.Config(server.app(), host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
    running = uvicorn.Server(config)
    task = asyncio.create_task(running._serve())
    while not running.started:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    port = running.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/"
    try:
        yield server
    finally:
        server.end_streams()
        running.should_exit = True
        await task
