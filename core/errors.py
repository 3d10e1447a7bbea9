"""The error tree. Each class knows its gRPC status, HTTP status and ErrorInfo reason.

HeadwayError
├── InvalidRequest          INVALID_ARGUMENT    400   the caller can mend it; names the field and the bound
│   └── ContextTooLong      INVALID_ARGUMENT    400
├── NotFound                NOT_FOUND           404   model, replica or request
├── AlreadyExists           ALREADY_EXISTS      409   a live request with this id
├── Stale                   ABORTED             409   the state changed since the caller looked
├── Refused                 FAILED_PRECONDITION 409   the change cannot be done in this state
├── Overloaded              RESOURCE_EXHAUSTED  429   try again later; carries RetryInfo
├── Cancelled               CANCELLED           499   the caller left, or Abort
├── DeadlineExceeded        DEADLINE_EXCEEDED   504
├── Unavailable             UNAVAILABLE         503   nobody can serve this now; carries RetryInfo
└── Internal                INTERNAL            500   ours; says no more to a caller than its id

ConfigError                 not for the wire: a configuration or checkpoint that cannot work, found before Ready
"""

from __future__ import annotations

from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "headway"


class HeadwayError(Exception):
    """What goes over the wire as a status. `message` is for a person and names what to change."""

    code: ClassVar[grpc.StatusCode]
    http_status: ClassVar[int]
    reason: ClassVar[str]

    def __init__(self, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def to_status(self) -> status_pb2.Status:
        """The google.rpc.Status with its details: ErrorInfo always, BadRequest and RetryInfo when they apply."""
        details: list[any_pb2.Any] = []

        def pack(
            detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
        ) -> None:
            packed = any_pb2.Any()
            packed.Pack(detail)
            details.append(packed)

        pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            pack(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=details)


class InvalidRequest(HeadwayError):
    """A field is out of its bounds. `field` is the dotted path in the request."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400
    reason = "INVALID_REQUEST"


class ContextTooLong(InvalidRequest):
    """The prompt does not fit the model's context."""

    reason = "CONTEXT_TOO_LONG"


class NotFound(HeadwayError):
    """No such model, replica or request."""

    code = grpc.StatusCode.NOT_FOUND
    http_status = 404
    reason = "NOT_FOUND"


class AlreadyExists(HeadwayError):
    """A live request with this id exists."""

    code = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409
    reason = "ALREADY_EXISTS"


class Stale(HeadwayError):
    """The state changed since the caller looked."""

    code = grpc.StatusCode.ABORTED
    http_status = 409
    reason = "STALE_VERSION"


class Refused(HeadwayError):
    """The change cannot be done in this state."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409
    reason = "REFUSED"


class Overloaded(HeadwayError):
    """Queues are full; the same request may succeed after `retry_after_s`."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    reason = "OVERLOADED"


class Cancelled(HeadwayError):
    """The caller left, or Abort stopped the request."""

    code = grpc.StatusCode.CANCELLED
    http_status = 499
    reason = "CANCELLED"


class DeadlineExceeded(HeadwayError):
    """The caller's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 504
    reason = "DEADLINE_EXCEEDED"


class Unavailable(HeadwayError):
    """Nobody can serve this now; the same request may succeed after `retry_after_s`."""

    code = grpc.StatusCode.UNAVAILABLE
    http_status = 503
    reason = "UNAVAILABLE"


class Internal(HeadwayError):
    """Our fault. The message says no more to a caller than an id to look for in the log."""

    code = grpc.StatusCode.INTERNAL
    http_status = 500
    reason = "INTERNAL"


class ConfigError(Exception):
    """A configuration or checkpoint that cannot work; the message names the file, field or number to change."""
