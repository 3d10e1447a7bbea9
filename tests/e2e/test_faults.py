"""Real processes killed with real signals."""

import asyncio
import os
import signal

import grpc
import pytest
from tiny_adapters import write_adapter

from headway.demo import DEMO_DIR
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import inference_pb2_grpc

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def pair(new_cluster, tmp_path_factory):
    """Two groups of two rank processes each, which hold an adapter."""
    cluster = new_cluster("--replicas", "2", "--tp", "2")
    path = write_adapter(tmp_path_factory.mktemp("adapter") / "odd", DEMO_DIR, seed=1, r=4, target_modules="all-linear")
    cluster.run("adapters", "load", "odd", str(path))
    yield cluster
    cluster.run("down")


async def stream(stub, number: int, progress: asyncio.Event | None = None) -> tuple[list[int], int]:
    """Every other one runs with the adapter."""
    message = pb.GenerateRequest(
        model="odd" if number % 2 else "",
        prompt=pb.Prompt(text=f"def method_{number}(self, "),
        sampling={"temperature": 1.0, "seed": number},
        stopping=pb.Stopping(max_new_tokens=200, ignore_eos=True),
        output=pb.Output(token_ids=True),
    )
    ids: list[int] = []
    migrations = 0
    async for response in stub.Generate(message):
        match response.WhichOneof("event"):
            case "delta":
                ids += response.delta.token_ids
                if progress and len(ids) > 10:
                    progress.set()
            case "usage":
                migrations = response.usage.timing.migrations
    return ids, migrations


@pytest.mark.parametrize("process", [0, 1], ids=["leader", "rank"])
async def test_a_killed_process_costs_a_pause_and_its_group_recovers(pair, process: int) -> None:
    before = {replica["id"]: replica for replica in pair.status()["replicas"]}
    victim = sorted(before)[process]
    async with grpc.aio.insecure_channel(pair.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        undisturbed = [ids for ids, _ in await asyncio.gather(*(stream(stub, n) for n in range(8)))]
        running = asyncio.Event()
        streams = [asyncio.create_task(stream(stub, n, running)) for n in range(8)]
        await asyncio.wait_for(running.wait(), 30)
        os.kill(before[victim]["pids"][process], signal.SIGKILL)
        disturbed = await asyncio.gather(*streams)
    assert [ids for ids, _ in disturbed] == undisturbed
    assert sum(migrations for _, migrations in disturbed) > 0

    def recovered(status) -> bool:
        now = {replica["id"]: replica for replica in status["replicas"]}
        return (
            victim in now
            and now[victim]["state"] == "READY"
            and now[victim]["incarnation"] != before[victim]["incarnation"]
            and now[victim]["adapters"] == ["odd"]
        )

    after = {replica["id"]: replica for replica in (await asyncio.to_thread(pair.wait_for, recovered))["replicas"]}
    assert not set(after[victim]["pids"]) & set(before[victim]["pids"])
    for other in set(before) - {victim}:
        assert after[other]["incarnation"] == before[other]["incarnation"]
        assert after[other]["pids"] == before[other]["pids"]
    async with grpc.aio.insecure_channel(pair.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        assert [ids for ids, _ in await asyncio.gather(*(stream(stub, n) for n in range(8)))] == undisturbed
