"""The router as a real process, with scripted engines and a scripted controller at the other ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import Process, RouterProcess
from rig import eventually
from scripted_controller import ScriptedController, replica
from scripted_engine import ScriptedEngine, expected_tokens

import headway
from headway.proto.headway.v1 import inference_pb2, sampling_pb2
from headway.proto.headway.v1.inference_pb2_grpc import InferenceServiceStub

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
DEMO = Path(headway.__file__).parent / "demo" / "headway-demo"
FILES = {path.name: path.read_bytes() for path in DEMO.glob("tokenizer*.json")}
PROMPT = [300, 301, 302, 303, 304]
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def engine(new_engine: NewEngine) -> ScriptedEngine:
    engine = await new_engine("a")
    engine.files, engine.vocab_size = FILES, 4096
    return engine


@pytest.fixture
async def controller(engine: ScriptedEngine) -> AsyncIterator[ScriptedController]:
    controller = ScriptedController()
    controller.snapshot.replicas.append(replica("a", engine.endpoint))
    yield await controller.start()
    await controller.die()


@pytest.fixture
async def new_router() -> AsyncIterator[Callable[..., Awaitable[RouterProcess]]]:
    routers: list[RouterProcess] = []

    async def start(*arguments: str) -> RouterProcess:
        routers.append(RouterProcess(*arguments))
        return await routers[-1].start()

    yield start
    for router in routers:
        await router.kill()


NewRouter = Callable[..., Awaitable[RouterProcess]]


def generate(count: int) -> inference_pb2.GenerateRequest:
    return inference_pb2.GenerateRequest(
        prompt=inference_pb2.Prompt(token_ids=inference_pb2.TokenIds(ids=PROMPT)),
        sampling=sampling_pb2.Sampling(seed=5),
        stopping=inference_pb2.Stopping(max_new_tokens=count, ignore_eos=True),
        output=inference_pb2.Output(token_ids=True),
    )


async def tokens(router: RouterProcess, count: int) -> list[int]:
    async with grpc.aio.insecure_channel(router.grpc) as channel:
        stream = InferenceServiceStub(channel).Generate(generate(count))
        return [token async for message in stream for token in message.delta.token_ids]


async def is_ready(router: RouterProcess) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{router.http}/ready")).status_code == 200


async def until_ready(router: RouterProcess) -> None:
    async with asyncio.timeout(30):
        while not await is_ready(router):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_both_fronts_serve_what_the_controller_declares(
    engine: ScriptedEngine, controller: ScriptedController, new_router: NewRouter
) -> None:
    engine.cached_tokens = 4
    router = await new_router("--controller", controller.address)
    await until_ready(router)
    assert await tokens(router, 12) == expected_tokens(PROMPT, 5, 12)
    async with httpx.AsyncClient(base_url=router.http) as client:
        body = {
            "model": "m",
            "prompt": PROMPT,
            "max_tokens": 9,
            "seed": 5,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        answer = (await client.post("/v1/completions", json=body)).json()
        assert answer["choices"][0]["token_ids"] == expected_tokens(PROMPT, 5, 9)
        assert (await client.get("/health")).status_code == 200
        metrics = (await client.get("/metrics")).text
    for line in (
        'headway_requests_total{front="grpc",model="m",outcome="length"} 1.0',
        'headway_output_tokens_total{model="m"} 21.0',
        'headway_prompt_tokens_total{model="m"} 10.0',
        'headway_cached_tokens_total{model="m"} 8.0',
        'headway_replica_requests_total{model="m",replica="a"} 2.0',
        'headway_ttft_seconds_count{model="m"} 2.0',
        'headway_request_seconds_count{model="m"} 2.0',
        'headway_ready_replicas{model="m"} 1.0',
        "headway_inflight_requests 0.0",
    ):
        assert line in metrics
    async with grpc.aio.insecure_channel(router.grpc) as channel:
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == SERVING
    await eventually(lambda: controller.reports and controller.reports[-1].requests == 2)
    report = controller.reports[-1]
    assert (report.id, report.grpc_address, report.http_address, report.pid) == (
        "rt",
        router.grpc,
        router.http,
        router.pid,
    )
    assert report.output_tokens_per_second > 0
    assert report.ttft_p50_ms > 0
    assert report.prefix_hit_ratio == pytest.approx(0.8)


async def test_no_controller_yet_is_unavailable_and_not_the_end(
    engine: ScriptedEngine, controller: ScriptedController, new_router: NewRouter
) -> None:
    await controller.die()
    router = await new_router("--controller", controller.address)
    assert not await is_ready(router)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tokens(router, 3)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(router.grpc) as channel:
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status != SERVING
    await controller.start()
    await until_ready(router)
    assert await tokens(router, 3) == expected_tokens(PROMPT, 5, 3)


async def test_sigterm_lets_streams_end_and_takes_no_new_ones(engine: ScriptedEngine, new_router: NewRouter) -> None:
    engine.step_s = 0.02
    router = await new_router("--replica", engine.endpoint)
    await until_ready(router)
    body = {"prompt": PROMPT, "max_tokens": 60, "seed": 5, "ignore_eos": True, "return_token_ids": True, "model": "m"}
    async with httpx.AsyncClient(base_url=router.http) as client:
        streams = asyncio.gather(tokens(router, 60), client.post("/v1/completions", json=body, timeout=30))
        await eventually(lambda: engine.running == 2)
        router.send(signal.SIGTERM)
        await router.said("stopping: 2 requests")
        with pytest.raises(grpc.aio.AioRpcError):
            await tokens(router, 1)
        over_grpc, over_http = await streams
    assert over_grpc == expected_tokens(PROMPT, 5, 60)
    assert over_http.json()["choices"][0]["token_ids"] == over_grpc
    assert await router.ended() == 0


async def test_the_grace_ends_and_so_does_the_process(engine: ScriptedEngine, new_router: NewRouter) -> None:
    engine.hold = True
    router = await new_router("--replica", engine.endpoint, "--grace", "1")
    await until_ready(router)
    stream = asyncio.create_task(tokens(router, 10))
    await eventually(lambda: engine.running)
    router.send(signal.SIGTERM)
    assert await router.ended() == 0
    with pytest.raises(grpc.aio.AioRpcError):
        await stream


@pytest.mark.parametrize("front", ["--grpc-port", "--http-port"])
async def test_a_taken_port_is_named_and_the_status_is_1(front: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        others = [name for name in ("--grpc-port", "--http-port") if name != front]
        process = await Process("headway.router", "--replica", "127.0.0.1:1", front, port, others[0], "0").start()
        assert await process.ended() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in process.log
    assert "Traceback" not in process.log


async def test_a_client_that_leaves_frees_the_engine(engine: ScriptedEngine, new_router: NewRouter) -> None:
    router = await new_router("--replica", engine.endpoint)
    await until_ready(router)
    async with grpc.aio.insecure_channel(router.grpc) as channel:
        call = InferenceServiceStub(channel).Generate(generate(900))
        await eventually(lambda: engine.running)
        call.cancel()
        await eventually(lambda: engine.aborts and not engine.running)
