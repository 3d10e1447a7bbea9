"""The controller's two gRPC services: thin, the work is in `controller`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ..core.errors import InvalidRequest
from ..proto.headway.v1 import admin_pb2, admin_pb2_grpc, control_pb2, control_pb2_grpc
from .controller import Controller

ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
CONTROL = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """The operators' API."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def WatchCluster(
        self, request: admin_pb2.WatchClusterRequest, context: Any
    ) -> AsyncIterator[admin_pb2.WatchClusterResponse]:
        async with aclosing(self._controller.view.watch()) as messages:  # type: ignore[type-var]
            async for message in messages:
                yield message

    async def ScaleModel(self, request: admin_pb2.ScaleModelRequest, context: Any) -> admin_pb2.ScaleModelResponse:
        return admin_pb2.ScaleModelResponse(effect=await self._controller.scale(request))

    async def DrainReplica(
        self, request: admin_pb2.DrainReplicaRequest, context: Any
    ) -> admin_pb2.DrainReplicaResponse:
        return admin_pb2.DrainReplicaResponse(effect=await self._controller.drain(request))

    async def RollbackModel(
        self, request: admin_pb2.RollbackModelRequest, context: Any
    ) -> admin_pb2.RollbackModelResponse:
        return admin_pb2.RollbackModelResponse(effect=await self._controller.rollback(request))

    async def ListRevisions(
        self, request: admin_pb2.ListRevisionsRequest, context: Any
    ) -> admin_pb2.ListRevisionsResponse:
        return admin_pb2.ListRevisionsResponse(revisions=self._controller.revisions(request.model))

    async def LoadAdapter(self, request: admin_pb2.LoadAdapterRequest, context: Any) -> admin_pb2.LoadAdapterResponse:
        return admin_pb2.LoadAdapterResponse(effect=await self._controller.load_adapter(request))

    async def UnloadAdapter(
        self, request: admin_pb2.UnloadAdapterRequest, context: Any
    ) -> admin_pb2.UnloadAdapterResponse:
        return admin_pb2.UnloadAdapterResponse(effect=await self._controller.unload_adapter(request))


class ControlServicer(control_pb2_grpc.ControlServiceServicer):
    """Reports of leaders and routers. However a stream ends, its end is news."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def ReportReplica(
        self, request_iterator: AsyncIterator[control_pb2.ReportReplicaRequest], context: Any
    ) -> control_pb2.ReportReplicaResponse:
        stream, replica_id = object(), ""
        try:
            async for report in request_iterator:
                replica_id = _same(report.replica_id, replica_id, "replica_id")
                self._controller.replica_reported(report, stream)
        finally:
            self._controller.replica_lost(replica_id, stream)
        return control_pb2.ReportReplicaResponse()

    async def ReportRouter(
        self, request_iterator: AsyncIterator[control_pb2.ReportRouterRequest], context: Any
    ) -> control_pb2.ReportRouterResponse:
        stream, router_id = object(), ""
        try:
            async for report in request_iterator:
                router_id = _same(report.router.id, router_id, "router.id")
                self._controller.router_reported(report.router, stream)
        finally:
            self._controller.router_lost(router_id, stream)
        return control_pb2.ReportRouterResponse()


def _same(name: str, before: str, field: str) -> str:
    if not name:
        raise InvalidRequest(f"{field} is empty", field=field)
    if before and name != before:
        raise InvalidRequest(f"{field} changed from {before} to {name} within one stream", field=field)
    return name
