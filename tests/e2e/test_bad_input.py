"""Bad input on both fronts of a real cluster: the same verdict, the field named, nothing else disturbed."""

import asyncio

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import inference_pb2_grpc

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MEGABYTE = 1 << 20
LONG = "value = value + 1\n" * 20_000

CASES = {
    # name: (gRPC request, gRPC field, HTTP fields, HTTP param, HTTP status)
    "empty prompt": (pb.GenerateRequest(prompt=pb.Prompt(text="")), "prompt", {"prompt": ""}, "prompt", 400),
    "prompt too long": (pb.GenerateRequest(prompt=pb.Prompt(text=LONG)), "prompt", {"prompt": LONG}, "prompt", 400),
    "unknown model": (
        pb.GenerateRequest(model="nobody", prompt=pb.Prompt(text="a")),
        "model",
        {"model": "nobody", "prompt": "a"},
        "model",
        404,
    ),
    "temperature -1": (
        pb.GenerateRequest(prompt=pb.Prompt(text="a"), sampling={"temperature": -1}),
        "sampling.temperature",
        {"prompt": "a", "temperature": -1},
        "temperature",
        400,
    ),
    "1 MB stop list": (
        pb.GenerateRequest(
            prompt=pb.Prompt(text="a"), stopping=pb.Stopping(stop_strings=["x" * 64] * (MEGABYTE // 64))
        ),
        "stopping.stop_strings",
        {"prompt": "a", "stop": ["x" * 64] * (MEGABYTE // 64)},
        "stop",
        400,
    ),
}


@pytest.fixture
async def neighbour(cluster):
    """A stream that runs beside the bad requests and must end whole."""
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        call = stub.Generate(
            pb.GenerateRequest(
                prompt=pb.Prompt(text="def neighbour(self):\n"),
                sampling={"temperature": 0},
                stopping=pb.Stopping(max_new_tokens=150, ignore_eos=True),
            )
        )

        async def consume() -> int:
            async for response in call:
                if response.WhichOneof("event") == "usage":
                    return response.usage.completion_tokens
            return 0

        task = asyncio.create_task(consume())
        yield
        assert await task == 150


@pytest.mark.parametrize("name", CASES)
async def test_both_fronts_give_the_same_verdict(cluster, neighbour, name: str) -> None:
    message, grpc_field, body, param, status = CASES[name]
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in inference_pb2_grpc.InferenceServiceStub(channel).Generate(message):
                pass
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details = rpc_status.from_call(caught.value).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(bad)
    assert bad.field_violations[0].field.startswith(grpc_field)

    model = cluster.document["replicas"][0]["model"]
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{cluster.document['http']}/v1/completions", json={"model": model, **body})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert error["code"] == info.reason


async def test_invalid_utf8_and_malformed_json_are_refused(cluster, neighbour) -> None:
    url = f"{cluster.document['http']}/v1/completions"
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient() as client:
        for content in (b'{"model": "\xff\xfe", "prompt": "a"}', b'{"model": ', b"[]", b""):
            answer = await client.post(url, content=content, headers=headers)
            assert answer.status_code == 400, content
            assert answer.json()["error"]["message"]
    async with grpc.aio.insecure_channel(cluster.document["grpc"]) as channel:
        # Field 2 (model) as a string that is no UTF-8, which no generated class would send.
        call = channel.unary_stream("/headway.v1.InferenceService/Generate")(b"\x12\x02\xff\xfe")
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
