"""The operators' web side: the dashboard's files, its event stream and changes, probes and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from ..core.errors import HeadwayError, InvalidRequest
from ..core.servers import as_status
from ..proto.headway.v1 import admin_pb2
from .controller import Controller
from .dashboard import STATIC_DIR
from .dashboard.page import Page
from .guard import Guard
from .metrics import render

MAX_BODY = 64 * 1024
KEEPALIVE_S = 10.0
NOT_BUILT = """<!doctype html><meta charset="utf-8"><title>Headway</title>
<h1>Headway</h1><p>The controller runs; the dashboard has not been built here. <code>make dashboard</code> builds it.
<ul><li><a href="/api/cluster">the cluster as JSON</a><li><a href="/metrics">metrics</a></ul>
"""


def build_app(controller: Controller, serving: Callable[[], bool], allowed_hosts: frozenset[str]) -> Starlette:
    """`serving` says whether the controller acts; `allowed_hosts` are names under which it may be asked."""
    api = _Api(controller, serving)
    routes: list[BaseRoute] = [
        Route("/api/watch", api.watch),
        Route("/api/cluster", api.cluster),
        Route("/api/scale", api.scale, methods=["POST"]),
        Route("/api/drain", api.drain, methods=["POST"]),
        Route("/health", api.health),
        Route("/ready", api.ready),
        Route("/metrics", api.metrics),
    ]
    if (STATIC_DIR / "index.html").exists():
        routes.append(Mount("/", Page()))
    else:
        routes.append(Route("/", _not_built))
    handlers: dict[Any, Any] = {HeadwayError: _refuse, Exception: _refuse}
    return Starlette(
        routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, allowed_hosts=allowed_hosts)]
    )


class _Api:
    def __init__(self, controller: Controller, serving: Callable[[], bool]) -> None:
        self._controller = controller
        self._serving = serving

    async def watch(self, request: Request) -> Response:
        """Server-sent events: each one's data is a WatchClusterResponse as protobuf JSON, the snapshot first."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(self._controller), media_type="text/event-stream", headers=headers)

    async def cluster(self, request: Request) -> Response:
        """One snapshot."""
        return JSONResponse(to_json(self._controller.view.snapshot()), headers={"Cache-Control": "no-store"})

    async def scale(self, request: Request) -> Response:
        body = await _body(request, {"model": str, "replicas": int})
        if body["replicas"] < 0:
            raise InvalidRequest(f"replicas must be at least 0, got {body['replicas']}", field="replicas")
        message = admin_pb2.ScaleModelRequest(model=body["model"], replicas=min(body["replicas"], 2**32 - 1))
        effect = await self._controller.scale(message)
        return JSONResponse(to_json(admin_pb2.ScaleModelResponse(effect=effect)))

    async def drain(self, request: Request) -> Response:
        body = await _body(request, {"replicaId": str}, {"timeoutSeconds": (int, float)})
        message = admin_pb2.DrainReplicaRequest(replica_id=body["replicaId"])
        if (seconds := body.get("timeoutSeconds")) is not None:
            if not 0 <= seconds <= 1e6:
                raise InvalidRequest(f"timeoutSeconds must be at least 0, got {seconds}", field="timeoutSeconds")
            message.timeout.FromMicroseconds(int(seconds * 1e6))
        effect = await self._controller.drain(message)
        return JSONResponse(to_json(admin_pb2.DrainReplicaResponse(effect=effect)))

    async def health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        if self._serving():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("Ray is starting\n", status_code=503)

    async def metrics(self, request: Request) -> Response:
        return Response(render(self._controller.view), media_type="text/plain; version=0.0.4; charset=utf-8")


def to_json(message: Message) -> dict[str, Any]:
    """Protobuf's JSON mapping: camelCase names, 64-bit integers as strings, fields at their default left out."""
    return json_format.MessageToDict(message)


async def _events(controller: Controller) -> AsyncIterator[str]:
    async with aclosing(controller.view.watch()) as messages:  # type: ignore[type-var]
        upcoming: asyncio.Future[admin_pb2.WatchClusterResponse] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(anext(messages))
                done, _ = await asyncio.wait({upcoming}, timeout=KEEPALIVE_S)
                if done:
                    yield f"data: {json.dumps(to_json(upcoming.result()))}\n\n"
                    upcoming = None
                else:
                    # A comment: browsers ignore it, and a peer that is gone is noticed.
                    yield ": \n\n"
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)


async def _body(request: Request, required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object of a change; raises InvalidRequest that names the field."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise InvalidRequest(f"the body must be at most {MAX_BODY} bytes")
    try:
        body = json.loads(data)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    kinds = required | (optional or {})
    for field in (*required, *body):
        if field not in kinds:
            raise InvalidRequest(f"unknown field {field}; known: {', '.join(kinds)}", field=field)
        if field not in body:
            raise InvalidRequest(f"{field} is missing", field=field)
        if not isinstance(body[field], kinds[field]) or isinstance(body[field], bool):
            wanted = "a string" if kinds[field] is str else "a number"
            raise InvalidRequest(f"{field} must be {wanted}, got {json.dumps(body[field])[:100]}", field=field)
    return body


async def _refuse(request: Request, error: Exception) -> Response:
    known = as_status(error)
    details = {"message": known.message, "reason": known.reason, "field": known.field}
    return JSONResponse({"error": details}, status_code=known.http_status)


async def _not_built(request: Request) -> Response:
    return HTMLResponse(NOT_BUILT)
