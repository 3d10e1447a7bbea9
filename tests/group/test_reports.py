"""What a group tells its controller: how the loading goes, that it is ready, why it is not; whoever is listening."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator

import grpc
import pytest
from worker_process import WorkerProcess, wait_gone

from headway.proto.headway.v1 import admin_pb2, control_pb2, control_pb2_grpc
from headway.worker.options import DEMO


class Controller(control_pb2_grpc.ControlServiceServicer):
    """Keeps all reports."""

    def __init__(self) -> None:
        self.reports: list[control_pb2.ReportReplicaRequest] = []
        self.arrived = asyncio.Condition()
        self.server: grpc.aio.Server | None = None
        self.port = 0

    async def ReportReplica(
        self, request_iterator: AsyncIterator[control_pb2.ReportReplicaRequest], context: object
    ) -> control_pb2.ReportReplicaResponse:
        async for report in request_iterator:
            async with self.arrived:
                self.reports.append(report)
                self.arrived.notify_all()
        return control_pb2.ReportReplicaResponse()

    async def start(self) -> None:
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        control_pb2_grpc.add_ControlServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def wait_for(self, state: admin_pb2.ReplicaState) -> control_pb2.ReportReplicaRequest:
        async with asyncio.timeout(60), self.arrived:
            await self.arrived.wait_for(lambda: bool(self.reports) and self.reports[-1].state == state)
            return self.reports[-1]


@pytest.fixture
async def controller() -> AsyncIterator[Controller]:
    controller = Controller()
    await controller.start()
    yield controller
    await controller.server.stop(0)


async def test_loading_then_ready_then_again_after_the_controller_was_away(controller):
    worker = WorkerProcess("--controller", f"127.0.0.1:{controller.port}", "--pages", "20", "--tp", "2")
    try:
        ready = await controller.wait_for(admin_pb2.REPLICA_STATE_READY)
        await asyncio.to_thread(worker.wait_ready)
        loaded = [report.loaded for report in controller.reports]
        assert loaded == sorted(loaded) and loaded[-1] == 1.0
        assert controller.reports[0].state == admin_pb2.REPLICA_STATE_LOADING
        assert (ready.endpoint, list(ready.pids)) == (worker.endpoint, worker.pids)
        assert ready.revision and ready.incarnation and ready.load.total_pages == 20
        await controller.server.stop(0)
        controller.reports.clear()
        await controller.start()
        again = await controller.wait_for(admin_pb2.REPLICA_STATE_READY)
        assert again.incarnation == ready.incarnation
    finally:
        worker.close()


async def test_a_group_that_cannot_load_says_why_and_ends(controller, tmp_path):
    model = tmp_path / "broken"
    shutil.copytree(DEMO, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    worker = WorkerProcess("--controller", f"127.0.0.1:{controller.port}", "--model", str(model), "--tp", "2")
    try:
        report = await controller.wait_for(admin_pb2.REPLICA_STATE_STOPPED)
        assert "model.layers.6.input_layernorm.weight" in report.reason
        assert await asyncio.to_thread(worker.process.wait, 30) == 1
        assert worker.log.read_text().splitlines()[-1] == f"headway worker: {report.reason}"
        assert not await asyncio.to_thread(wait_gone, list(report.pids), 5)
    finally:
        worker.close()
