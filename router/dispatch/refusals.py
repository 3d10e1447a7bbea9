"""From an engine's refusal to the error that a caller gets."""

from __future__ import annotations

import grpc

from ...core.errors import (
    AlreadyExists,
    ContextTooLong,
    DeadlineExceeded,
    HeadwayError,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    Refused,
    Unavailable,
)
from ...proto.headway.v1 import engine_pb2

RETRY_AFTER_S = 1.0
# Another replica may take what this one cannot take now.
TRANSIENT = frozenset((grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], grpc.StatusCode.UNAVAILABLE.value[0]))
_CLASSES: dict[int, type[HeadwayError]] = {
    cls.code.value[0]: cls
    for cls in (AlreadyExists, DeadlineExceeded, InvalidRequest, NotFound, Overloaded, Refused, Unavailable)
}


def error_of(refusal: engine_pb2.Refusal) -> HeadwayError:
    """The error of the tree with the refusal's status, words and field of Submit; a status that no engine should give
    is Internal."""
    if refusal.reason == ContextTooLong.reason:
        return ContextTooLong(refusal.message, field=refusal.field or "token_ids")
    cls = _CLASSES.get(refusal.code, Internal)
    retry_after_s = RETRY_AFTER_S if refusal.code in TRANSIENT else None
    return cls(refusal.message, field=refusal.field, retry_after_s=retry_after_s)
