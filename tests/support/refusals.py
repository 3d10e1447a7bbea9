"""What a refused call over gRPC was told."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    """Code, message and field of the refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    field = ""
    for detail in rpc_status.from_call(caught.value).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            field = bad.field_violations[0].field
    return caught.value.code(), caught.value.details(), field
