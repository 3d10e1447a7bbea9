"""A controller with its gRPC server, over stand-in groups."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
import pytest_asyncio
from support.stand_in_groups import StandInSupervisor

from headway.controller.controller import Controller
from headway.controller.services import ADMIN, CONTROL, AdminServicer, ControlServicer
from headway.controller.state import MemoryStore, ModelSpec, StateStore
from headway.core.servers import listen, new_server
from headway.proto.headway.v1 import admin_pb2, admin_pb2_grpc, control_pb2_grpc


class Running:
    """A controller that runs, its stub, and its stand-in groups."""

    def __init__(self, controller: Controller, supervisor: StandInSupervisor, address: str) -> None:
        self.controller = controller
        self.supervisor = supervisor
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)

    def states(self) -> dict[str, str]:
        """State by replica, as watchers see it."""
        name = admin_pb2.ReplicaState.Name
        return {r.id: name(r.state).removeprefix("REPLICA_STATE_") for r in self.controller.view.replicas()}

    def replica(self, replica_id: str) -> admin_pb2.Replica:
        return next(replica for replica in self.controller.view.replicas() if replica.id == replica_id)

    async def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, self.controller.view.snapshot()
            await asyncio.sleep(0.02)

    async def until_states(self, **wanted: str) -> None:
        states = {name.replace("_", "-"): state for name, state in wanted.items()}
        await self.until(lambda: self.states() == states)


@contextlib.asynccontextmanager
async def running(
    *, replicas: int = 2, capacity: int = 100, plan: str = "serve", store: StateStore | None = None
) -> AsyncIterator[Running]:
    supervisor = StandInSupervisor(capacity)
    supervisor.plan = plan
    controller = Controller(store or MemoryStore(), supervisor)
    server, _ = new_server(ADMIN, CONTROL)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(controller), server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(ControlServicer(controller), server)
    controller.controller_address = f"127.0.0.1:{listen(server, '127.0.0.1', 0)}"
    await server.start()
    await controller.start([ModelSpec(name="demo", path="/m", replicas=replicas)])
    task = asyncio.create_task(controller.run())
    up = Running(controller, supervisor, controller.controller_address)
    try:
        yield up
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await supervisor.close()
        await up.channel.close()
        await controller.close()
        # grpc.aio ends the interpreter when a server goes while a handler of it winds down.
        await asyncio.sleep(0.05)
        await server.stop(1.0)


@pytest_asyncio.fixture(loop_scope="session")
async def up() -> AsyncIterator[Running]:
    async with running() as found:
        await found.until_states(demo_0="READY", demo_1="READY")
        yield found


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def calm() -> AsyncIterator[Running]:
    """One for the tests that change nothing."""
    async with running() as found:
        await found.until_states(demo_0="READY", demo_1="READY")
        yield found


@pytest.fixture
def new_controller():
    return running
