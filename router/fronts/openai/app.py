"""The HTTP front as one application."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ....core.errors import HeadwayError, InvalidRequest, NotFound
from ....core.servers import as_status
from ...handler import RequestHandler
from ...types import ServedModel
from .chat_reply import ChatReply
from .completion_reply import CompletionReply
from .embeddings import EmbeddingsEndpoint
from .endpoint import GenerateEndpoint
from .errors import error_body, error_headers
from .requests import read_chat, read_completion


def openai_app(handler: RequestHandler, *, extra_routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application for an ASGI server in the handler's event loop; `extra_routes` (health, metrics) join ours.

    Requests that generate go straight to their endpoints: Starlette would pass every event of a stream through a
    function of its router and of each of its layers.
    """
    started_at = int(time.time())

    async def list_models(request: Request) -> Response:
        models = [_model(model, started_at) for model in handler.catalogue.models()]
        return _json({"object": "list", "data": models})

    async def get_model(request: Request) -> Response:
        return _json(_model(handler.catalogue.get(request.path_params["model"]), started_at))

    generate = {
        "/v1/chat/completions": GenerateEndpoint(handler, read_chat, ChatReply, "chat.completions"),
        "/v1/completions": GenerateEndpoint(handler, read_completion, CompletionReply, "completions"),
    }
    routes = [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in generate.items()),
        Route("/v1/embeddings", EmbeddingsEndpoint(handler.embeddings), methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", get_model, methods=["GET"]),
    ]
    rest = Starlette(
        routes=[*routes, *extra_routes],
        exception_handlers={HTTPException: _no_such_route, HeadwayError: _refused},
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        generates = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in generate
        await (generate[scope["path"]] if generates else rest)(scope, receive, send)

    return app


def _model(model: ServedModel, created: int) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "headway",
        "root": model.base or model.name,
        "parent": model.base or None,
        "max_model_len": model.max_context_tokens,
    }


def _json(value: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        return _error(InvalidRequest(f"{path} does not take {request.method}"), 405, error.headers)
    if error.status_code == 404:
        return _error(NotFound(f"no such path: {path}"))
    return _error(as_status(error))


async def _refused(request: Request, error: Exception) -> Response:
    return _error(as_status(error))


def _error(error: HeadwayError, status: int | None = None, headers: Any = None) -> Response:
    own = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(
        error_body(error),
        status_code=status or error.http_status,
        media_type="application/json",
        headers={**(headers or {}), **own},
    )
