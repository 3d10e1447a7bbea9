"""A burst of calls waits for a server that is busy: none is cancelled by the transport, without a reason to act on."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from headway.core.servers import CHANNEL_OPTIONS, listen, new_server

CALLS = 3500  # gRPC itself begins to cancel at 1,000 that wait


def test_a_burst_at_a_busy_server_is_heard() -> None:
    loop, go_on = asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server, _ = new_server()
        port = listen(server, "127.0.0.1", 0)
        await server.start()
        return server, port

    async def burst(port: int) -> Counter[str]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
            check = HealthStub(channel).Check
            await check(health_pb2.HealthCheckRequest())
            loop.call_soon_threadsafe(go_on.wait)
            calls = [asyncio.ensure_future(verdict(check(health_pb2.HealthCheckRequest()))) for _ in range(CALLS)]
            await asyncio.sleep(1.0)
            go_on.set()
            return Counter(await asyncio.gather(*calls))

    async def verdict(call: grpc.aio.UnaryUnaryCall) -> str:  # type: ignore[type-arg]
        return (await call.code()).name

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        assert asyncio.run(burst(port)) == {"OK": CALLS}
    finally:
        go_on.set()
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
