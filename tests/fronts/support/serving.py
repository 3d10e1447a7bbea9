"""Both fronts for real: a grpc.aio server and uvicorn on free ports of 127.0.0.1, over one handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import uvicorn

from headway.core import servers
from headway.proto.headway.v1 import inference_pb2_grpc
from headway.router.fronts.inference import InferenceServicer
from headway.router.fronts.openai.app import openai_app
from headway.router.handler import RequestHandler
from headway.tests.fronts.support.scripted_replicas import (
    RecordingObserver,
    ScriptedCatalogue,
    ScriptedDispatcher,
    demo_model,
    until,
)


@dataclass
class Fronts:
    catalogue: ScriptedCatalogue
    dispatcher: ScriptedDispatcher
    observer: RecordingObserver
    channel: grpc.aio.Channel
    stub: inference_pb2_grpc.InferenceServiceAsyncStub
    grpc_address: str
    url: str
    """Of the HTTP front, without a slash at its end."""


@asynccontextmanager
async def serve() -> AsyncIterator[Fronts]:
    catalogue, dispatcher, observer = ScriptedCatalogue([demo_model()]), ScriptedDispatcher(), RecordingObserver()
    handler = RequestHandler(catalogue, dispatcher, observer)
    grpc_server, _ = servers.new_server("headway.v1.InferenceService")
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceServicer(handler), grpc_server)
    port = servers.listen(grpc_server, "127.0.0.1", 0)
    await grpc_server.start()
    config = uvicorn.Config(openai_app(handler), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    http_server = uvicorn.Server(config)
    http = asyncio.create_task(_without_signals(http_server))
    await until(lambda: http_server.started)
    http_port = http_server.servers[0].sockets[0].getsockname()[1]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=servers.CHANNEL_OPTIONS)
    stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
    try:
        yield Fronts(
            catalogue, dispatcher, observer, channel, stub, f"127.0.0.1:{port}", f"http://127.0.0.1:{http_port}"
        )
    finally:
        await channel.close(None)
        http_server.should_exit = True
        await http
        await grpc_server.stop(0)


async def _without_signals(server: uvicorn.Server) -> None:
    # `serve` would take over the test process's signals.
    await server._serve()
