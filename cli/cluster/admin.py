"""The command line's side of AdminService."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import grpc
import msgspec
from google.protobuf.message import Message

from ...core.servers import CHANNEL_OPTIONS
from ...proto.headway.v1 import admin_pb2, admin_pb2_grpc
from .files import ReplicaEntry

ASK_S = 5.0


class ClusterMirror:
    """The cluster as WatchCluster's messages tell it."""

    def __init__(self) -> None:
        self.models: dict[str, admin_pb2.ModelDeployment] = {}
        self.replicas: dict[str, admin_pb2.Replica] = {}
        self.routers: dict[str, admin_pb2.Router] = {}

    def take(self, message: admin_pb2.WatchClusterResponse) -> None:
        """Applies one message."""
        if message.snapshot:
            self.__init__()  # type: ignore[misc]
        self.models.update({model.name: model for model in message.models})
        self.replicas.update({replica.id: replica for replica in message.replicas})
        self.routers.update({router.id: router for router in message.routers})
        for replica_id in message.removed_replica_ids:
            self.replicas.pop(replica_id, None)
        for router_id in message.removed_router_ids:
            self.routers.pop(router_id, None)

    def entries(self) -> list[ReplicaEntry]:
        """The replicas as the document names them."""
        return [
            ReplicaEntry(
                id=replica.id,
                model=replica.model,
                tp=replica.tensor_parallel,
                pp=replica.pipeline_parallel,
                pids=list(replica.pids),
            )
            for _, replica in sorted(self.replicas.items())
        ]


class ReplicaStatus(ReplicaEntry, kw_only=True):
    """A replica in `status --json`: its entry, its state, and its load."""

    state: str
    reason: str
    incarnation: str
    endpoint: str
    loaded: float
    restarts: int
    load: dict[str, Any]
    adapters: list[str]


def state_name(replica: admin_pb2.Replica) -> str:
    """PENDING, LOADING, READY, DRAINING, UNHEALTHY or STOPPED."""
    return admin_pb2.ReplicaState.Name(replica.state).removeprefix("REPLICA_STATE_")


def plain(message: Message) -> dict[str, Any]:
    """Every field of a message but its lists. (Protobuf's own JSON makes strings of 64-bit numbers.)"""
    values = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields if not field.is_repeated}
    return {
        name: plain(value) if isinstance(value, Message) else round(value, 3) if isinstance(value, float) else value
        for name, value in values.items()
    }


def statuses(mirror: ClusterMirror) -> list[ReplicaStatus]:
    """Every replica with its state and load."""
    found = []
    for entry in mirror.entries():
        replica = mirror.replicas[entry.id]
        found.append(
            ReplicaStatus(
                **msgspec.structs.asdict(entry),
                state=state_name(replica),
                reason=replica.reason,
                incarnation=replica.incarnation,
                endpoint=replica.endpoint,
                loaded=round(replica.loaded, 4),
                restarts=replica.restarts,
                load=plain(replica.load),
                adapters=[adapter.name for adapter in replica.adapters],
            )
        )
    return found


@contextmanager
def admin_stub(address: str) -> Iterator[admin_pb2_grpc.AdminServiceStub]:
    """A stub; errors of calls inside come out as errors of our tree."""
    from ...client.errors import from_rpc

    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            yield admin_pb2_grpc.AdminServiceStub(channel)
        except grpc.RpcError as error:
            raise from_rpc(error, address) from None


def look(address: str) -> ClusterMirror:
    """The cluster now. Raises Unavailable when the controller does not answer."""
    mirror = ClusterMirror()
    with admin_stub(address) as stub:
        call = stub.WatchCluster(admin_pb2.WatchClusterRequest(), timeout=ASK_S)
        for message in call:
            mirror.take(message)
            break
        call.cancel()
    return mirror


def watch(address: str, tell: Callable[[admin_pb2.WatchClusterResponse], None]) -> None:
    """Follows the cluster on a thread of its own for as long as the controller lives."""

    def follow() -> None:
        with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            try:
                for message in admin_pb2_grpc.AdminServiceStub(channel).WatchCluster(admin_pb2.WatchClusterRequest()):
                    tell(message)
            except grpc.RpcError:
                # The end of the controller: its supervisor sees that process end.
                return

    Thread(target=follow, name="watch", daemon=True).start()
