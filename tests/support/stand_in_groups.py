"""Worker groups without a model, for tests of the controller: their reports and their Drain go over real gRPC.

Their side is gRPC's threads, not grpc.aio: a controller's event loop is shared with nobody.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc

from headway.core.servers import CHANNEL_OPTIONS
from headway.core.specs import GroupSpec
from headway.proto.headway.v1 import (
    admin_pb2,
    control_pb2,
    control_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
)

REPORT_S = 0.2
RESTART_S = 0.2


class StandInLeader(engine_pb2_grpc.EngineServiceServicer):
    """Listens, reports LOADING, then follows its plan: serve, load (never ready), refuse (cannot work) or crash."""

    def __init__(self, spec: GroupSpec, incarnation: str, plan: str) -> None:
        self.ended = threading.Event()
        self.adapters: dict[str, str] = {}
        self.adapter_calls: list[str] = []
        self._spec = spec
        self._incarnation = incarnation
        self._unfinished = 0
        self._draining = False
        self._plan = plan
        self._state = admin_pb2.REPLICA_STATE_LOADING
        self._reason = ""
        self._changed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._server = grpc.server(ThreadPoolExecutor(2))
        engine_pb2_grpc.add_EngineServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._channel = grpc.insecure_channel(spec.controller_address, options=CHANNEL_OPTIONS)
        # gRPC reads the reports in a thread of its own, which may come to a death before the call has its name here.
        self._opened = threading.Event()
        self._call = control_pb2_grpc.ControlServiceStub(self._channel).ReportReplica.future(self._reports())
        self._opened.set()

    def Drain(self, request: engine_pb2.DrainRequest, context: grpc.ServicerContext) -> engine_pb2.DrainResponse:
        self._draining = not request.cancel
        self._report(admin_pb2.REPLICA_STATE_DRAINING)
        return engine_pb2.DrainResponse(unfinished=self._unfinished)

    def LoadAdapter(
        self, request: engine_pb2.EngineServiceLoadAdapterRequest, context: grpc.ServicerContext
    ) -> engine_pb2.EngineServiceLoadAdapterResponse:
        if request.path == "/bad" or request.path == f"/bad-for-{self._spec.replica_id}":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.path}: use_dora = True is not supported")
        self.adapters[request.name] = request.path
        self.adapter_calls.append(f"load {request.name}")
        self._changed.put(None)
        return engine_pb2.EngineServiceLoadAdapterResponse()

    def UnloadAdapter(
        self, request: engine_pb2.EngineServiceUnloadAdapterRequest, context: grpc.ServicerContext
    ) -> engine_pb2.EngineServiceUnloadAdapterResponse:
        if self.adapters.pop(request.name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"adapter {request.name!r} is not loaded here")
        self.adapter_calls.append(f"unload {request.name}")
        self._changed.put(None)
        return engine_pb2.EngineServiceUnloadAdapterResponse()

    def load(self, requests: int) -> None:
        """So many requests run on it from now on."""
        self._unfinished = requests
        self._changed.put(None)

    def die(self) -> None:
        """As by SIGKILL: its streams break. Idempotent."""
        if not self.ended.is_set():
            self.ended.set()
            self._changed.put(None)
            self._opened.wait()
            self._call.cancel()
            self._channel.close()
            self._server.stop(None).wait()

    def _report(self, state: admin_pb2.ReplicaState, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self._changed.put(None)

    def _reports(self) -> Iterator[control_pb2.ReportReplicaRequest]:
        yield self._message()
        if self._plan == "refuse":
            self._report(admin_pb2.REPLICA_STATE_STOPPED, "model.safetensors: tensor lm_head.weight is missing")
        elif self._plan == "serve":
            self._report(admin_pb2.REPLICA_STATE_READY)
        elif self._plan == "crash":
            threading.Thread(target=self.die).start()
        while not self.ended.is_set():
            with suppress(queue.Empty):
                self._changed.get(timeout=REPORT_S)
            yield self._message()

    def _message(self) -> control_pb2.ReportReplicaRequest:
        return control_pb2.ReportReplicaRequest(
            replica_id=self._spec.replica_id,
            incarnation=self._incarnation,
            state=self._state,
            reason=self._reason,
            loaded=0.5 if self._state == admin_pb2.REPLICA_STATE_LOADING else 1.0,
            endpoint=f"127.0.0.1:{self._port}",
            pids=[os.getpid()],
            adapters=[engine_pb2.Adapter(name=name, path=path) for name, path in list(self.adapters.items())],
            load=engine_pb2.Load(running=self._unfinished, total_pages=64, accepting=not self._draining),
        )


class StandInSupervisor:
    """Meets GroupSupervisor. A group that ends is started again after a moment, until it is stopped."""

    def __init__(self, capacity: int = 100) -> None:
        self.capacity = capacity
        self.plan = "serve"
        self.starts: dict[str, int] = {}
        self.stopped: list[str] = []
        self.leaders: dict[str, StandInLeader] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def start(self, spec: GroupSpec) -> None:
        if self.plan == "no supervisor":
            raise RuntimeError("no supervisor here")
        if spec.replica_id not in self._keepers:
            self._keepers[spec.replica_id] = asyncio.create_task(self._keep(spec))

    async def stop(self, replica_id: str) -> None:
        keeper = self._keepers.pop(replica_id, None)
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            leader = self.leaders.pop(replica_id, None)
            if leader is not None:
                await asyncio.to_thread(leader.die)
            self.stopped.append(replica_id)

    async def held(self) -> set[str]:
        return set(self._keepers)

    async def shortage(self, spec: GroupSpec) -> str:
        return "" if len(self.leaders) < self.capacity else f"waits for {spec.world_size} devices; 0 are free"

    async def close(self) -> None:
        for replica_id in list(self._keepers):
            await self.stop(replica_id)

    async def _keep(self, spec: GroupSpec) -> None:
        while True:
            while len(self.leaders) >= self.capacity:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            start = self.starts[spec.replica_id] = self.starts.get(spec.replica_id, 0) + 1
            leader = StandInLeader(spec, f"{spec.replica_id}-start-{start}", self.plan)
            self.leaders[spec.replica_id] = leader
            while not leader.ended.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await asyncio.to_thread(leader.die)
            del self.leaders[spec.replica_id]
            await asyncio.sleep(RESTART_S)
