"""The cluster as its watchers see it: a snapshot, then what changed, with one version for everything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from google.protobuf.message import Message

from ..proto.headway.v1 import admin_pb2

# Under this many seconds after a message, changes wait and travel together.
COALESCE_S = 0.02
LIFE_BITS = 32

Key = tuple[str, str]


class _Watcher:
    def __init__(self) -> None:
        self.dirty: set[Key] = set()
        self.wake = asyncio.Event()


class ClusterView:
    """Holds the current message of every model, replica and router. Owned by one event loop.

    The version grows with each change. A watcher that is slow gets fewer messages, never older ones: what it is owed
    is a set of names, and a message is made from the current state when the watcher takes it.
    """

    def __init__(self) -> None:
        self.version = 0
        self._now: dict[Key, Message] = {}
        self._watchers: set[_Watcher] = set()

    def begin_life(self, life: int) -> None:
        """Goes on above every version of the `life` controllers before this one."""
        self.version += life << LIFE_BITS

    def put_model(self, model: admin_pb2.ModelDeployment) -> None:
        self._put(("model", model.name), model)

    def put_replica(self, replica: admin_pb2.Replica) -> None:
        self._put(("replica", replica.id), replica)

    def put_router(self, router: admin_pb2.Router) -> None:
        self._put(("router", router.id), router)

    def remove_replica(self, replica_id: str) -> None:
        self._remove(("replica", replica_id))

    def remove_router(self, router_id: str) -> None:
        self._remove(("router", router_id))

    def advance(self) -> int:
        """A new version for a change that no message shows."""
        self.version += 1
        return self.version

    def models(self) -> list[admin_pb2.ModelDeployment]:
        return [message for message in self._sorted() if isinstance(message, admin_pb2.ModelDeployment)]

    def replicas(self) -> list[admin_pb2.Replica]:
        return [message for message in self._sorted() if isinstance(message, admin_pb2.Replica)]

    def routers(self) -> list[admin_pb2.Router]:
        return [message for message in self._sorted() if isinstance(message, admin_pb2.Router)]

    def snapshot(self) -> admin_pb2.WatchClusterResponse:
        """The whole state."""
        return self._message(set(self._now), snapshot=True)

    async def watch(self) -> AsyncIterator[admin_pb2.WatchClusterResponse]:
        """A snapshot, then changes for ever. Closing the iterator ends the watch."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield self.snapshot()
            while True:
                await watcher.wake.wait()
                await asyncio.sleep(COALESCE_S)
                watcher.wake.clear()
                dirty, watcher.dirty = watcher.dirty, set()
                yield self._message(dirty, snapshot=False)
        finally:
            self._watchers.discard(watcher)

    def _sorted(self) -> list[Message]:
        return [self._now[key] for key in sorted(self._now)]

    def _put(self, key: Key, message: Message) -> None:
        if self._now.get(key) != message:
            self._now[key] = message
            self._changed(key)

    def _remove(self, key: Key) -> None:
        if self._now.pop(key, None) is not None:
            self._changed(key)

    def _changed(self, key: Key) -> None:
        self.version += 1
        for watcher in self._watchers:
            watcher.dirty.add(key)
            watcher.wake.set()

    def _message(self, keys: set[Key], *, snapshot: bool) -> admin_pb2.WatchClusterResponse:
        response = admin_pb2.WatchClusterResponse(version=self.version, snapshot=snapshot)
        response.time.FromNanoseconds(time.time_ns())
        for key in sorted(keys):
            message = self._now.get(key)
            if isinstance(message, admin_pb2.ModelDeployment):
                response.models.append(message)
            elif isinstance(message, admin_pb2.Replica):
                response.replicas.append(message)
            elif isinstance(message, admin_pb2.Router):
                response.routers.append(message)
            elif key[0] == "replica":
                response.removed_replica_ids.append(key[1])
            elif key[0] == "router":
                response.removed_router_ids.append(key[1])
        return response
