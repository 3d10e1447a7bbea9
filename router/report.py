"""Tells the controller of this router: every second, for ever, whether or not it listens."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator

import grpc

from ..core.servers import CHANNEL_OPTIONS
from ..proto.headway.v1 import admin_pb2, control_pb2
from ..proto.headway.v1.control_pb2_grpc import ControlServiceStub
from .metrics import RouterMetrics
from .replicas.backoff import Backoff

log = logging.getLogger(__name__)

PERIOD_S = 1.0


class RouterReport:
    """What identifies this router, and its figures."""

    def __init__(self, *, router_id: str, grpc_address: str, http_address: str, metrics: RouterMetrics) -> None:
        self._router_id = router_id
        self._grpc_address = grpc_address
        self._http_address = http_address
        self._metrics = metrics

    def message(self) -> admin_pb2.Router:
        """The router as of now."""
        metrics = self._metrics
        recent = metrics.recent.summary(time.perf_counter())
        return admin_pb2.Router(
            id=self._router_id,
            grpc_address=self._grpc_address,
            http_address=self._http_address,
            pid=os.getpid(),
            running=metrics.inflight,
            requests=metrics.requests,
            errors=metrics.errors,
            migrations=metrics.migrations,
            output_tokens_per_second=recent.output_tokens_per_second,
            requests_per_second=recent.requests_per_second,
            ttft_p50_ms=recent.ttft_p50 * 1e3,
            ttft_p99_ms=recent.ttft_p99 * 1e3,
            tpot_p50_ms=recent.tpot_p50 * 1e3,
            tpot_p99_ms=recent.tpot_p99 * 1e3,
            prefix_hit_ratio=recent.prefix_hit_ratio,
        )

    async def run(self, controller: str) -> None:
        """Reports to the controller at this address; never returns. The watch says when the controller is away."""
        backoff = Backoff(first_s=0.2)
        async with grpc.aio.insecure_channel(controller, options=CHANNEL_OPTIONS) as channel:
            stub = ControlServiceStub(channel)
            while True:
                try:
                    await stub.ReportRouter(self._messages())
                except grpc.aio.AioRpcError as error:
                    log.debug("reporting to %s: %s", controller, error.details())
                await backoff.wait()

    async def _messages(self) -> AsyncIterator[control_pb2.ReportRouterRequest]:
        while True:
            yield control_pb2.ReportRouterRequest(router=self.message())
            await asyncio.sleep(PERIOD_S)
