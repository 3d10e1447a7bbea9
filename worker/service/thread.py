"""The event loop's thread: the gRPC server, the heartbeat and the reports to the controller."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import grpc
import uvloop
from grpc_health.v1._async import HealthServicer

from ...core.servers import listen, new_server, set_serving
from ...proto.headway.v1 import control_pb2
from ...proto.headway.v1.engine_pb2_grpc import add_EngineServiceServicer_to_server
from ..engine import StepReport
from .reporter import Reporter
from .servicer import EngineServicer, ServedEngine
from .standing import Standing

log = logging.getLogger(__name__)

SERVICE = "headway.v1.EngineService"


class ServiceThread:
    """Serves from `start` to `stop`. Its methods may be called from any other thread."""

    def __init__(self, standing: Standing, controller_address: str, on_drain: Callable[[bool], None]) -> None:
        self._standing = standing
        self._controller_address = controller_address
        self._servicer = EngineServicer(on_drain)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="headway-service", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []
        self._server: grpc.aio.Server | None = None
        self._checker: HealthServicer | None = None
        self._reporter: Reporter | None = None

    def start(self, host: str, port: int) -> int:
        """Listens, and begins to report. Returns the port; raises OSError when it is taken."""
        self._thread.start()
        bound: int = self._call(self._start(host, port))
        return bound

    def ready(self, engine: ServedEngine) -> None:
        """Takes requests from now on."""
        self._call(self._ready(engine))

    def publish(self, report: StepReport) -> None:
        """Hands on a report of the engine; does not wait."""
        assert self._servicer.engine is not None
        self._loop.call_soon_threadsafe(self._servicer.engine.hub.publish, report)

    def changed(self) -> None:
        """The standing has changed: report it soon."""
        if self._reporter is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._reporter.changed)

    def set_serving(self, serving: bool) -> None:
        """Sets the health that probes see, soon."""
        asyncio.run_coroutine_threadsafe(self._set_serving(serving), self._loop)

    def flush(self, timeout_s: float) -> None:
        """Returns when the standing has been reported, or could not be in time."""
        if self._reporter is not None:
            with suppress(TimeoutError):
                self._call(asyncio.wait_for(self._reporter.flush(), timeout_s))

    def stop(self, grace_s: float) -> None:
        """Ends streams and server within `grace_s`."""
        if not self._thread.is_alive():
            return
        self._call(self._stop(grace_s))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self, host: str, port: int) -> int:
        self._server, self._checker = new_server(SERVICE)
        add_EngineServiceServicer_to_server(self._servicer, self._server)
        bound = listen(self._server, host, port)
        await self._server.start()
        if self._controller_address:
            self._reporter = Reporter(self._controller_address, self._report)
            self._tasks.append(asyncio.create_task(self._reporter.run()))
        return bound

    async def _ready(self, engine: ServedEngine) -> None:
        self._servicer.engine = engine
        self._tasks.append(asyncio.create_task(engine.hub.beat()))
        await self._set_serving(True)

    async def _set_serving(self, serving: bool) -> None:
        assert self._checker is not None
        await set_serving(self._checker, serving, SERVICE)

    async def _stop(self, grace_s: float) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._checker is not None:
            await self._set_serving(False)
        if self._servicer.engine is not None:
            self._servicer.engine.hub.close()
            await self._servicer.engine.grammars.close()
        if self._server is not None:
            await self._server.stop(grace_s)

    def _report(self) -> control_pb2.ReportReplicaRequest:
        message = self._standing.message()
        if self._servicer.engine is not None:
            message.load.CopyFrom(self._servicer.engine.hub.load())
        return message
