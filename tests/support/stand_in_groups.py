"""Worker groups without a model, for tests of the controller: their reports and their Drain go over real gRPC."""

import asyncio
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


class StandInGroup(engine_pb2_grpc.EngineServiceServicer):
    """A leader: listens, reports LOADING and READY, drains when told; `unfinished` requests are the test's to end."""

    def __init__(self, spec: GroupSpec, start: int, plan: str) -> None:
        self.spec = spec
        self.incarnation = f"{spec.replica_id}-start-{start}"
        self.plan = plan
        self.unfinished = 0
        self.draining = False
        self.state = admin_pb2.REPLICA_STATE_LOADING
        self.reason = ""
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._live())

    async def Drain(self, request, context):
        self.draining = not request.cancel
        self.report(admin_pb2.REPLICA_STATE_DRAINING)
        return engine_pb2.DrainResponse(unfinished=self.unfinished)

    def report(self, state: admin_pb2.ReplicaState, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self._changed.set()

    async def die(self) -> None:
        """As by SIGKILL: the stream breaks."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _live(self) -> None:
        server = grpc.aio.server()
        engine_pb2_grpc.add_EngineServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        try:
            await server.start()
            async with grpc.aio.insecure_channel(self.spec.controller_address, options=CHANNEL_OPTIONS) as channel:
                call = control_pb2_grpc.ControlServiceStub(channel).ReportReplica()
                await call.write(self._message(port))
                await self._follow_plan()
                while True:
                    await call.write(self._message(port))
                    self._changed.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), 0.2)
        except grpc.aio.AioRpcError:
            return
        finally:
            # A server that is not stopped to the end crashes the interpreter when it is collected.
            await asyncio.shield(server.stop(None))

    async def _follow_plan(self) -> None:
        if self.plan == "crash":
            raise asyncio.CancelledError
        if self.plan == "refuse":
            self.report(admin_pb2.REPLICA_STATE_STOPPED, "model.safetensors: tensor lm_head.weight is missing")
        elif self.plan == "serve":
            self.report(admin_pb2.REPLICA_STATE_READY)

    def _message(self, port: int) -> control_pb2.ReportReplicaRequest:
        return control_pb2.ReportReplicaRequest(
            replica_id=self.spec.replica_id,
            incarnation=self.incarnation,
            state=self.state,
            reason=self.reason,
            loaded=0.5 if self.state == admin_pb2.REPLICA_STATE_LOADING else 1.0,
            endpoint=f"127.0.0.1:{port}",
            pids=[1000 + rank for rank in range(self.spec.world_size)],
            load=engine_pb2.Load(running=self.unfinished, accepting=not self.draining),
        )


class StandInSupervisor:
    """Meets GroupSupervisor. A group that ends is started again after a moment, until it is stopped."""

    def __init__(self, capacity: int = 100) -> None:
        self.capacity = capacity
        self.groups: dict[str, StandInGroup] = {}
        self.starts: dict[str, int] = {}
        self.stopped: list[str] = []
        self.plan = "serve"
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def start(self, spec: GroupSpec) -> None:
        if spec.replica_id not in self._keepers:
            self._keepers[spec.replica_id] = asyncio.create_task(self._keep(spec))

    async def stop(self, replica_id: str) -> None:
        keeper = self._keepers.pop(replica_id, None)
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            group = self.groups.pop(replica_id, None)
            if group is not None:
                await group.die()
            self.stopped.append(replica_id)

    async def held(self) -> set[str]:
        return set(self._keepers)

    async def shortage(self, spec: GroupSpec) -> str:
        return "" if len(self.groups) < self.capacity else f"waits for {spec.world_size} devices; 0 are free"

    async def close(self) -> None:
        for replica_id in list(self._keepers):
            await self.stop(replica_id)

    async def _keep(self, spec: GroupSpec) -> None:
        while True:
            while len(self.groups) >= self.capacity:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            start = self.starts[spec.replica_id] = self.starts.get(spec.replica_id, 0) + 1
            group = self.groups[spec.replica_id] = StandInGroup(spec, start, self.plan)
            await asyncio.wait({group._task})
            await asyncio.sleep(0.3)
