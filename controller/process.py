"""The controller process: listens first, then starts Ray, then acts, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn

from ..core.errors import ConfigError
from ..core.logs import set_up_logs
from ..core.servers import listen, new_server, set_serving
from ..proto.headway.v1 import admin_pb2_grpc, control_pb2_grpc
from .controller import Controller
from .http import build_app
from .ray_runtime import RayRuntime
from .serve_apps import ServeSupervisor
from .services import ADMIN, CONTROL, AdminServicer, ControlServicer
from .settings import Settings, parse
from .state import MemoryStore, RedisStore, StateStore

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """The exit code. Errors that a user can mend are one line on stderr."""
    try:
        settings = parse(arguments)
    except ConfigError as error:
        if "--announce" in arguments:
            announce("failed", message=str(error))
        sys.stderr.write(f"headway controller: {error}\n")
        return 1
    set_up_logs("controller")
    try:
        asyncio.run(serve(settings))
    except (ConfigError, OSError) as error:
        if settings.announce:
            announce("failed", message=str(error))
        log.error("%s", error)
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigError and OSError for what keeps it from starting."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    controller = Controller(_store(settings.state), ServeSupervisor(), group_host=settings.group_host)
    acting = False
    server, checker = new_server(ADMIN, CONTROL)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(controller), server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(ControlServicer(controller), server)
    grpc_port = listen(server, settings.host, settings.grpc_port)
    controller.controller_address = f"{settings.advertise}:{grpc_port}"
    web = build_app(controller, lambda: acting, settings.allowed_hosts)
    async with contextlib.AsyncExitStack() as stack:
        http_port = await stack.enter_async_context(_web_server(web, settings.host, settings.http_port))
        await server.start()
        stack.push_async_callback(server.stop, 0.5)
        if settings.announce:
            announce("listening", grpc_port=grpc_port, http_port=http_port)
        await stack.enter_async_context(_ray(settings))
        # Ray has put its own handlers in place of ours, and they end the process.
        _stop_on_signals(stop)
        if stop.is_set():
            return
        if settings.announce:
            announce("ray")
        stack.push_async_callback(controller.close)
        await controller.start([settings.model])
        acting = True
        await set_serving(checker, True, ADMIN, CONTROL)
        running = asyncio.create_task(controller.run())
        await stop.wait()
        log.info("stopping")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def announce(event: str, **facts: object) -> None:
    """One JSON line on stdout for whoever started this process."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _store(where: str) -> StateStore:
    if where.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(where)
    return MemoryStore(Path(where) if where else None)


@asynccontextmanager
async def _ray(settings: Settings) -> AsyncIterator[None]:
    """Ray while inside. It starts and stops on one thread that lives as long: its children die with that thread."""
    runtime = RayRuntime(settings.ray_temp_dir)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="ray") as thread:
        try:
            if settings.ray_address:
                await loop.run_in_executor(thread, runtime.join, settings.ray_address)
            else:
                await loop.run_in_executor(thread, runtime.start, settings.cpu_devices)
            yield
        finally:
            await loop.run_in_executor(thread, runtime.stop)


class _Web(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The process has its own; uvicorn's would end it before Ray is down.
        yield


@asynccontextmanager
async def _web_server(app: object, host: str, port: int) -> AsyncIterator[int]:
    """An HTTP server while inside; gives its port. Raises OSError when the port is taken."""
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)  # type: ignore[arg-type]
    web = _Web(config)
    task = asyncio.create_task(web.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        web.should_exit = True
        await task
        listener.close()
