"""One router process: both fronts over the fleet, from the first socket to the last stream."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..core.servers import listen, new_server, set_serving
from ..proto.headway.v1 import inference_pb2_grpc
from .dispatch import FleetDispatcher
from .fronts.inference import InferenceServicer
from .fronts.openai.app import openai_app
from .handler import RequestHandler
from .http_server import HttpServer, listening_socket
from .index import PrefixIndex
from .metrics import RouterMetrics
from .policy import Ledger, Policy
from .replicas import Fleet, FleetCatalogue, watch_cluster
from .report import RouterReport

log = logging.getLogger(__name__)

SERVICE = "headway.v1.InferenceService"
HEALTH_PERIOD_S = 1.0
WILDCARDS = ("0.0.0.0", "::", "[::]", "")


class RouterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of one router. With `replicas` ("host:port") and no controller it serves just these."""

    router_id: str
    controller: str = ""
    replicas: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    advertise_host: str = ""
    grace_s: float = 30.0

    @property
    def reachable_host(self) -> str:
        """The host to tell others."""
        return self.advertise_host or (socket.gethostname() if self.host in WILDCARDS else self.host)


class Router:
    """Puts the parts together. `run` serves until `stop` is called, or a signal comes."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        index, ledger = PrefixIndex(), Ledger()
        self.fleet = Fleet(router_id=config.router_id, index=index, ledger=ledger)
        self.catalogue = FleetCatalogue(self.fleet)
        self.metrics = RouterMetrics(self.catalogue.models)
        dispatcher = FleetDispatcher(self.fleet, self.catalogue, index, Policy(ledger), meter=self.metrics)
        self.handler = RequestHandler(self.catalogue, dispatcher, self.metrics)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a request would find a replica now."""
        return not self._stop.is_set() and any(replica.ready for replica in self.fleet.replicas())

    def stop(self) -> None:
        """Ends gracefully; a second call ends now."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def run(self) -> None:
        """Serves. Raises OSError when a port is taken."""
        config = self.config
        grpc_server, checker = new_server(SERVICE)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceServicer(self.handler), grpc_server)
        grpc_port = listen(grpc_server, config.host, config.grpc_port)
        http_socket = listening_socket(config.host, config.http_port)
        http_port = http_socket.getsockname()[1]
        http_server = HttpServer(openai_app(self.handler, extra_routes=self._routes()), config.grace_s)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

        await grpc_server.start()
        http_task = asyncio.create_task(http_server.serve(sockets=[http_socket]))
        background: list[asyncio.Task[Any]] = [
            asyncio.create_task(work) for work in self._background(grpc_port, http_port)
        ]
        health = asyncio.create_task(self._keep_health(checker))
        log.info("router %s serves: grpc %s:%d, http %s:%d", config.router_id, *self._at(grpc_port, http_port))

        stopping = asyncio.create_task(self._stop.wait())
        ends: list[asyncio.Task[Any]] = [http_task, stopping, *background]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        health.cancel()
        await set_serving(checker, False, SERVICE)
        log.info("stopping: %d requests may take %g s to end", self.metrics.inflight, config.grace_s)
        await self._end(grpc_server.stop(config.grace_s), http_server, http_task)
        for task in (*background, stopping):
            task.cancel()
        results = await asyncio.gather(http_task, *background, return_exceptions=True)
        await self.fleet.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _end(
        self, stop_grpc: Coroutine[Any, Any, None], http_server: HttpServer, http_task: asyncio.Task[None]
    ) -> None:
        """Both fronts take no more and finish what they have, within the grace or until hurried."""
        http_server.should_exit = True
        ends = asyncio.gather(stop_grpc, http_task)
        hurry = asyncio.create_task(self._hurry.wait())
        waits: list[asyncio.Future[Any]] = [ends, hurry]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ends.done():
            http_server.force_exit = True
            ends.cancel()
        await asyncio.gather(ends, return_exceptions=True)

    def _background(self, grpc_port: int, http_port: int) -> list[Coroutine[Any, Any, None]]:
        """What runs as long as the process does."""
        config = self.config
        for endpoint in config.replicas:
            self.fleet.add_static(endpoint)
        if not config.controller:
            return []
        report = RouterReport(
            router_id=config.router_id,
            grpc_address=f"{config.reachable_host}:{grpc_port}",
            http_address=f"http://{config.reachable_host}:{http_port}",
            metrics=self.metrics,
        )
        return [watch_cluster(config.controller, self.fleet), report.run(config.controller)]

    def _at(self, grpc_port: int, http_port: int) -> tuple[str, int, str, int]:
        return self.config.host, grpc_port, self.config.host, http_port

    async def _keep_health(self, checker: Any) -> None:
        """grpc.health follows readiness."""
        told = False
        while True:
            if self.ready != told:
                told = self.ready
                await set_serving(checker, told, SERVICE)
            await self.fleet.changed.wait(HEALTH_PERIOD_S)

    def _routes(self) -> list[BaseRoute]:
        async def health(request: Request) -> Response:
            return JSONResponse({"status": "alive"})

        async def ready(request: Request) -> Response:
            models = {model.name: model.ready_replicas for model in self.catalogue.models()}
            return JSONResponse({"ready": self.ready, "models": models}, status_code=200 if self.ready else 503)

        async def metrics(request: Request) -> Response:
            return Response(self.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

        return [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
