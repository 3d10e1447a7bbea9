"""Reports the group's standing to the controller, at each change and at least every second, for as long as it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from ...core.servers import CHANNEL_OPTIONS
from ...proto.headway.v1 import control_pb2
from ...proto.headway.v1.control_pb2_grpc import ControlServiceStub

if TYPE_CHECKING:
    from ...proto.headway.v1.control_pb2_grpc import ControlServiceAsyncStub


log = logging.getLogger(__name__)

INTERVAL_S = 1.0
RETRY_S = 0.5


class Reporter:
    """One stream to the controller, opened again whenever it breaks: nothing here needs the controller to be there."""

    def __init__(self, address: str, report: Callable[[], control_pb2.ReportReplicaRequest]) -> None:
        self._address = address
        self._report = report
        self._changed = asyncio.Event()
        self._sent = asyncio.Event()
        self._connected = False

    def changed(self) -> None:
        """Sends a report soon."""
        self._sent.clear()
        self._changed.set()

    async def flush(self) -> None:
        """Returns when a report made after this call is on its way."""
        self.changed()
        await self._sent.wait()

    async def run(self) -> None:
        """Runs until cancelled."""
        async with grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) as channel:
            stub = ControlServiceStub(channel)
            while True:
                try:
                    await self._stream(stub)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                    self._note(False, error)
                await asyncio.sleep(RETRY_S)

    async def _stream(self, stub: ControlServiceAsyncStub) -> None:
        call = stub.ReportReplica(None)
        try:
            while not call.done():
                self._changed.clear()
                await call.write(self._report())
                self._note(True)
                if not self._changed.is_set():
                    self._sent.set()
                try:
                    await asyncio.wait_for(self._changed.wait(), INTERVAL_S)
                except TimeoutError:
                    continue
        finally:
            call.cancel()

    def _note(self, connected: bool, error: BaseException | None = None) -> None:
        if connected is not self._connected:
            self._connected = connected
            if connected:
                log.info("reporting to the controller at %s", self._address)
            else:
                log.warning("lost the controller at %s, trying again: %s", self._address, error)
