"""What the process learns about every request that either front took: one record, four moments."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from ..core.errors import Cancelled, HeadwayError, Internal
from ..proto.headway.v1 import sampling_pb2


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request from arrival to end. Times are `time.perf_counter()` seconds; 0.0 until the moment came.

    Exactly one of `finish_reason` (not UNSPECIFIED) and `error` (an ErrorInfo reason of core/errors.py) is set once
    the request ended. A client that went away, on either front, is the error "CANCELLED".
    """

    front: str
    method: str
    arrived_at: float
    request_id: str = ""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token_at: float = 0.0
    last_token_at: float = 0.0
    ended_at: float = 0.0
    replica_id: str = ""
    migrations: int = 0
    preemptions: int = 0
    sequences: int = 1
    finish_reason: sampling_pb2.FinishReason = sampling_pb2.FINISH_REASON_UNSPECIFIED
    error: str = ""


def reason_of(error: BaseException) -> str:
    """What the record of a request that ended so says."""
    if isinstance(error, HeadwayError):
        return error.reason
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Cancelled.reason
    return Internal.reason


class RequestObserver(Protocol):
    """Called in the event loop, in this order; `arrived` and `ended` exactly once a request, whatever happens."""

    def arrived(self, record: RequestRecord) -> None:
        """A front read a request; nothing about it is checked yet."""
        ...

    def first_token(self, record: RequestRecord) -> None:
        """`first_token_at`, `prompt_tokens`, `cached_tokens` and `replica_id` are set."""
        ...

    def tokens(self, record: RequestRecord, count: int, seconds: float) -> None:
        """`count` more tokens, `seconds` after those before them. Not called for the chunk of the first token."""
        ...

    def ended(self, record: RequestRecord) -> None:
        """Finished, failed or left. Requests that validation refused end here too, with no token."""
        ...
