"""The error tree: each class has one status everywhere, and its details survive the wire."""

import re

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headway.core import errors
from headway.core.errors import HeadwayError, InvalidRequest, Overloaded
from headway.core.servers import as_status, listen, new_server, set_serving
from headway.proto.headway.v1 import inference_pb2, inference_pb2_grpc

TREE = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, HeadwayError) and cls is not HeadwayError
]


@pytest.mark.parametrize("cls", TREE)
def test_the_drawn_tree_tells_each_status(cls: type[HeadwayError]) -> None:
    line = next(line for line in errors.__doc__.splitlines() if re.search(rf"── {cls.__name__}\s", line))
    assert cls.code.name in line
    assert str(cls.http_status) in line


def test_reasons_are_unique() -> None:
    assert len({cls.reason for cls in TREE}) == len(TREE)


class Failing(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def GetModel(self, request, context):
        raise self.error

    async def Generate(self, request, context):
        yield inference_pb2.GenerateResponse(request_id="a")
        raise self.error


async def call(error: Exception, streaming: bool) -> grpc.aio.AioRpcError:
    server, health = new_server("headway.v1.InferenceService")
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Failing(error), server)
    port = listen(server, "127.0.0.1", 0)
    await server.start()
    await set_serving(health, True, "headway.v1.InferenceService")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                if streaming:
                    async for _ in stub.Generate(inference_pb2.GenerateRequest()):
                        pass
                else:
                    await stub.GetModel(inference_pb2.GetModelRequest())
            return caught.value
    finally:
        await server.stop(0)


@pytest.mark.parametrize("streaming", [False, True])
async def test_details_reach_the_caller(streaming: bool) -> None:
    error = await call(InvalidRequest("temperature is -1", field="sampling.temperature"), streaming)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details = rpc_status.from_call(error).details
    assert details[0].Unpack(info) and info.reason == "INVALID_REQUEST" and info.domain == "headway"
    assert details[1].Unpack(bad) and bad.field_violations[0].field == "sampling.temperature"


async def test_retry_info_reaches_the_caller() -> None:
    error = await call(Overloaded("queues are full", retry_after_s=1.5), streaming=False)
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(error).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_bug_shows_no_trace_to_the_caller(streaming: bool) -> None:
    error = await call(ZeroDivisionError("secret path /etc"), streaming)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details())
    assert re.search(r"internal error [0-9a-f]{12}", str(error.details()))


def test_the_trees_own_errors_pass_unchanged() -> None:
    error = Overloaded("full")
    assert as_status(error) is error


async def test_a_taken_port_is_refused() -> None:
    first, _ = new_server()
    port = listen(first, "127.0.0.1", 0)
    second, _ = new_server()
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        listen(second, "127.0.0.1", port)
