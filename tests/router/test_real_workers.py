"""Two real worker groups of the demo model behind a real router process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from processes import RouterProcess, WorkerProcess
from rig import eventually

from headway.proto.headway.v1 import engine_pb2, inference_pb2, sampling_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub
from headway.proto.headway.v1.inference_pb2_grpc import InferenceServiceStub

READY_S = 60


@dataclass
class Cluster:
    workers: list[WorkerProcess]
    router: RouterProcess

    def of(self, replica_id: str) -> WorkerProcess:
        return next(worker for worker in self.workers if worker.replica_id == replica_id)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    workers = [WorkerProcess(name) for name in ("w0", "w1")]
    processes = [*workers]
    try:
        await asyncio.gather(*(worker.start() for worker in workers))
        arguments = [part for worker in workers for part in ("--replica", worker.endpoint)]
        router = RouterProcess(*arguments)
        processes.append(router)
        await router.start()
        await both_ready(router)
        yield Cluster(workers, router)
    finally:
        for process in processes:
            await process.kill()


async def both_ready(router: RouterProcess) -> None:
    async with asyncio.timeout(READY_S), httpx.AsyncClient() as client:
        while sum((await client.get(f"{router.http}/ready")).json()["models"].values()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@dataclass
class Answer:
    """What one stream brought."""

    tokens: list[int] = field(default_factory=list)
    replica_id: str = ""
    cached_tokens: int = 0
    migrations: int = 0


async def stream(stub: Any, prompt: list[int], count: int, answer: Answer, **sampling: float) -> Answer:
    """Fills the answer as messages come."""
    call = stub.Generate(
        inference_pb2.GenerateRequest(
            prompt=inference_pb2.Prompt(token_ids=inference_pb2.TokenIds(ids=prompt)),
            sampling=sampling_pb2.Sampling(**sampling),  # type: ignore[arg-type]
            stopping=inference_pb2.Stopping(max_new_tokens=count, ignore_eos=True),
            output=inference_pb2.Output(token_ids=True),
        )
    )
    async for message in call:
        kind = message.WhichOneof("event")
        if kind == "started":
            answer.replica_id, answer.cached_tokens = message.started.replica_id, message.started.cached_tokens
        elif kind == "delta":
            answer.tokens += message.delta.token_ids
        elif kind == "usage":
            answer.migrations = message.usage.timing.migrations
    return answer


async def load_of(worker: WorkerProcess) -> engine_pb2.Load:
    """The load as the worker tells any router that says hello."""
    async with grpc.aio.insecure_channel(worker.endpoint) as channel:
        call = EngineServiceStub(channel).Session()  # type: ignore[call-arg]
        await call.write(engine_pb2.SessionRequest(hello=engine_pb2.Hello(router_id="probe")))
        async for report in call:
            call.cancel()
            return report.load
    raise AssertionError("no report")


async def until_idle(worker: WorkerProcess) -> None:
    async with asyncio.timeout(20):
        while (load := await load_of(worker)).running or load.waiting or load.used_pages:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_shared_prefixes_find_the_warm_replica_and_clients_that_leave_free_its_pages(cluster: Cluster) -> None:
    system = [300 + number % 500 for number in range(320)]
    async with grpc.aio.insecure_channel(cluster.router.grpc) as channel:
        stub = InferenceServiceStub(channel)
        first = await stream(stub, [*system, 1000], 4, Answer(), temperature=0.0)
        assert first.cached_tokens == 0
        for number in range(6):
            answer = await stream(stub, [*system, 1001 + number], 4, Answer(), temperature=0.0)
            assert (answer.replica_id, answer.cached_tokens) == (first.replica_id, 320)

        answers = [Answer() for _ in range(6)]
        tasks = [
            asyncio.create_task(stream(stub, [400 + number] * 50, 900, answer, temperature=0.0))
            for number, answer in enumerate(answers)
        ]
        await eventually(lambda: all(answer.tokens for answer in answers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for worker in cluster.workers:
        await until_idle(worker)
    assert all(len(answer.tokens) < 900 for answer in answers)


async def test_a_killed_leader_s_streams_go_on_with_the_tokens_of_an_undisturbed_run(cluster: Cluster) -> None:
    prompts = [[500 + 7 * number, 600 + number, 350, 360 + number] * 5 for number in range(8)]
    ways: list[dict[str, float]] = [
        {"temperature": 0.0} if number % 2 else {"temperature": 0.9, "top_p": 0.95, "seed": number}
        for number in range(8)
    ]

    async with grpc.aio.insecure_channel(cluster.router.grpc) as channel:
        stub = InferenceServiceStub(channel)

        def start(answers: list[Answer]) -> list[asyncio.Task[Answer]]:
            return [
                asyncio.create_task(stream(stub, prompt, 300, answer, **way))
                for prompt, way, answer in zip(prompts, ways, answers, strict=True)
            ]

        undisturbed = await asyncio.gather(*start([Answer() for _ in prompts]))
        answers = [Answer() for _ in prompts]
        tasks = start(answers)
        await eventually(lambda: all(len(answer.tokens) > 20 for answer in answers))
        victim = cluster.of(answers[0].replica_id)
        on_victim = [answer.replica_id == victim.replica_id and len(answer.tokens) < 300 for answer in answers]
        victim.send(signal.SIGKILL)
        await asyncio.gather(*tasks)
    assert any(on_victim)
    assert [len(answer.tokens) for answer in answers] == [300] * 8
    for answer, lost, reference in zip(answers, on_victim, undisturbed, strict=True):
        assert answer.migrations >= lost
        assert answer.tokens == reference.tokens
