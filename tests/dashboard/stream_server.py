"""The controller's own web side, as in production from the view to the wire, over a cluster that a test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.controller.controller import Controller
from headway.controller.http import build_app
from headway.controller.view import ClusterView
from headway.core.errors import InvalidRequest
from headway.proto.headway.v1 import admin_pb2


class ScriptedController:
    """The part of a Controller that its web side uses: shows what it is told and keeps what it is asked."""

    def __init__(self) -> None:
        self.view = ClusterView()
        self.refusal: str | None = None
        self.asked: list[tuple[object, ...]] = []

    async def scale(self, request: admin_pb2.ScaleModelRequest) -> admin_pb2.Effect:
        return self._take("scale", request.model, request.replicas)

    async def drain(self, request: admin_pb2.DrainReplicaRequest) -> admin_pb2.Effect:
        return self._take("drain", request.replica_id, request.timeout.ToSeconds())

    def _take(self, *asked: object) -> admin_pb2.Effect:
        self.asked.append(asked)
        if self.refusal is not None:
            raise InvalidRequest(self.refusal, field="replicas")
        return admin_pb2.Effect(version=9, steps=["the controller's own words"])

    def change(self, message: admin_pb2.WatchClusterResponse) -> None:
        for model in message.models:
            self.view.put_model(model)
        for replica in message.replicas:
            self.view.put_replica(replica)
        for router in message.routers:
            self.view.put_router(router)
        for id in message.removed_replica_ids:
            self.view.remove_replica(id)
        for id in message.removed_router_ids:
            self.view.remove_router(id)


class StreamServer:
    """Serves a scripted controller, and breaks its event streams when told."""

    def __init__(self) -> None:
        self.controller = ScriptedController()
        self.is_down = False
        self.connections = 0
        self.url = ""
        self._streams: set[asyncio.Task[None]] = set()

    def show(self, cluster: admin_pb2.WatchClusterResponse) -> None:
        """From now on the cluster is this one, as after a controller's restart; open streams do not hear of it."""
        self.controller.view = ClusterView()
        self.controller.change(cluster)

    def end_streams(self) -> None:
        for stream in self._streams:
            stream.cancel()

    def break_streams(self) -> None:
        """Ends every open stream; new ones get 503 until `is_down` is false."""
        self.is_down = True
        self.end_streams()

    def app(self) -> ASGIApp:
        web = build_app(cast(Controller, self.controller), lambda: True, frozenset())
        # The same once more below a prefix, as behind an ingress.
        both = Starlette(routes=[Mount("/ops/headway", app=web), Mount("/", app=web)])

        async def breakable(scope: Scope, receive: Receive, send: Send) -> None:
            if not scope.get("path", "").endswith("/api/watch"):
                await both(scope, receive, send)
            elif self.is_down:
                await Response("down", status_code=503)(scope, receive, send)
            else:
                await self._stream(both(scope, receive, send), send)

        return breakable

    async def _stream(self, answer: Any, send: Send) -> None:
        self.connections += 1
        stream = asyncio.create_task(answer)
        self._streams.add(stream)
        await asyncio.wait({stream})
        self._streams.discard(stream)
        if stream.cancelled():
            await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(server: StreamServer) -> AsyncIterator[StreamServer]:
    """Serves on a free port of the loopback until the block ends."""
    config = uvicorn.Config(
        server.app(), host="127.0.0.1", port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=2
    )
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
