"""The error tree, made again from a gRPC status: class by ErrorInfo's reason, with field and retry delay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ..core import errors
from ..core.errors import DOMAIN, HeadwayError


def _tree(base: type[HeadwayError] = HeadwayError) -> Iterator[type[HeadwayError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _tree(kind)


BY_REASON = {kind.reason: kind for kind in _tree()}
# For statuses that gRPC itself or something between us and the server made: the most general class of each code.
BY_CODE = {kind.code: kind for kind in reversed(list(_tree()))}


def from_rpc(error: grpc.RpcError, address: str) -> HeadwayError:
    """The error that the server raised, or the nearest class when the status is not of its making."""
    code, details = error.code(), error.details() or ""
    status = _status(error)
    if status is None:
        return _foreign(code, details, address)
    kind, field, retry_after_s = None, "", None
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = BY_REASON.get(info.reason)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    kind = kind or BY_CODE.get(code, errors.Internal)
    return kind(status.message, field=field, retry_after_s=retry_after_s)


def _status(error: Any) -> status_pb2.Status | None:
    """The google.rpc.Status in the trailers, None when there is none or it contradicts the call's own code."""
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except ValueError:
        return None
    return status


def _foreign(code: grpc.StatusCode, details: str, address: str) -> HeadwayError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"no answer from {address}: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(f"{address} did not finish within the timeout")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return errors.InvalidRequest(f"the message is too large for {address}: {details}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.Internal(f"{address} is no Headway router, or an older one: {details}")
    return BY_CODE.get(code, errors.Internal)(f"{code.name} from {address}: {details}")


def cut_short(address: str) -> HeadwayError:
    """For a stream that ended in good order but without its last messages."""
    return errors.Internal(f"{address} ended the stream before its last message")


def why(error: Exception) -> str:
    """What is wrong with a value that a message cannot hold, in words that go after the value's name."""
    if isinstance(error, UnicodeError):
        return "is not valid UTF-8"
    # All that protobuf says about what is no text.
    return "must be text" if "bad argument type" in str(error) else str(error)
