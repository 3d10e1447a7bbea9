"""A controller that says what a test tells it to: a real AdminService and ControlService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from headway.core.servers import listen, new_server
from headway.proto.headway.v1 import admin_pb2, control_pb2
from headway.proto.headway.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from headway.proto.headway.v1.control_pb2_grpc import ControlServiceServicer, add_ControlServiceServicer_to_server

READY = admin_pb2.REPLICA_STATE_READY


def replica(
    replica_id: str, endpoint: str, state: admin_pb2.ReplicaState = READY, incarnation: str = "boot-1"
) -> admin_pb2.Replica:
    return admin_pb2.Replica(id=replica_id, model="m", state=state, endpoint=endpoint, incarnation=incarnation)


class ScriptedController(AdminServiceServicer, ControlServiceServicer):
    """`say` sends an update to all watchers; `snapshot` is what a new watcher gets first."""

    def __init__(self) -> None:
        self.snapshot = admin_pb2.WatchClusterResponse(snapshot=True)
        self.snapshot.models.add(name="m", desired_replicas=1)
        self.reports: list[admin_pb2.Router] = []
        self.port = 0
        self._watchers: list[asyncio.Queue[admin_pb2.WatchClusterResponse]] = []
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    async def start(self) -> ScriptedController:
        self._server, _ = new_server("headway.v1.AdminService", "headway.v1.ControlService")
        add_AdminServiceServicer_to_server(self, self._server)
        add_ControlServiceServicer_to_server(self, self._server)
        self.port = listen(self._server, "127.0.0.1", self.port)
        await self._server.start()
        return self

    async def die(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
        self._watchers.clear()

    def say(self, *replicas: admin_pb2.Replica, removed: tuple[str, ...] = ()) -> None:
        for queue in self._watchers:
            queue.put_nowait(admin_pb2.WatchClusterResponse(replicas=replicas, removed_replica_ids=removed))

    async def WatchCluster(self, request: Any, context: Any) -> AsyncIterator[Any]:
        queue: asyncio.Queue[admin_pb2.WatchClusterResponse] = asyncio.Queue()
        self._watchers.append(queue)
        yield self.snapshot
        while True:
            yield await queue.get()

    async def ReportRouter(self, request_iterator: Any, context: Any) -> control_pb2.ReportRouterResponse:
        async for message in request_iterator:
            self.reports.append(message.router)
        return control_pb2.ReportRouterResponse()
