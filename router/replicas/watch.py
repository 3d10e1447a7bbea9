"""Follows the controller's view of the cluster for ever. While it is away, the last view stands."""

from __future__ import annotations

import logging

import grpc

from ...core.servers import CHANNEL_OPTIONS
from ...proto.headway.v1 import admin_pb2
from ...proto.headway.v1.admin_pb2_grpc import AdminServiceStub
from .backoff import Backoff
from .fleet import Fleet

log = logging.getLogger(__name__)


async def watch_cluster(address: str, fleet: Fleet) -> None:
    """Applies what WatchCluster sends to the fleet; never returns, and outlasts every failure of the controller."""
    backoff = Backoff(first_s=0.2)
    said = ""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = AdminServiceStub(channel)
        while True:
            why = "it ended the stream"
            try:
                async for update in stub.WatchCluster(admin_pb2.WatchClusterRequest()):
                    if said:
                        log.info("the controller at %s is back", address)
                    said = ""
                    fleet.apply(update)
                    backoff.reset()
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {error.details()}"
            except Exception:
                why = "an error in the watch"
                log.exception("watching the cluster")
            if why != said:
                log.warning("no controller at %s (%s); going on with what is known", address, why)
                said = why
            await backoff.wait()
