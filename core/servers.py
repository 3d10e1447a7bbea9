"""What every gRPC server of ours has: health, reflection, and errors of the tree sent as statuses with details."""

from __future__ import annotations

import inspect
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from .errors import HeadwayError, Internal, InvalidRequest
from .malformed import explain

log = logging.getLogger(__name__)

WILDCARDS = ("0.0.0.0", "::", "[::]", "")
# Calls that a busy server has not come to. gRPC's own 1,000 to 3,000 end a burst in CANCELLED, which tells callers
# nothing; refused by us they hear when to try again.
MOST_PENDING = 16_384
# A reused port must fail loudly: two clusters on one address would share requests at random.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.server.max_pending_requests", MOST_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
)
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)


def as_status(error: BaseException) -> HeadwayError:
    """The error as a caller may see it: the tree's own pass, anything else becomes Internal with an id."""
    if isinstance(error, HeadwayError):
        return error
    error_id = uuid.uuid4().hex[:12]
    log.error("internal error %s", error_id, exc_info=error)
    return Internal(f"internal error {error_id}; the server's log has the details")


async def abort(context: Any, error: BaseException) -> NoReturn:
    """Ends the call with the error's status and details."""
    await context.abort_with_status(rpc_status.to_status(as_status(error).to_status()))
    raise AssertionError("abort_with_status always raises")


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Turns exceptions of handlers into statuses, so that no servicer repeats the mapping and no trace leaks."""

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.response_streaming:
            wrapped = _guard_stream(handler.stream_stream if handler.request_streaming else handler.unary_stream)
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
        else:
            wrapped = _guard_unary(handler.stream_unary if handler.request_streaming else handler.unary_unary)
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
        read = handler.request_deserializer
        if not handler.request_streaming:
            read = _lenient(read)
        return make(wrapped, read, handler.response_serializer)


def _lenient(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserializer that returns the refusal of bytes it cannot read: raised there, grpc would say only INTERNAL."""
    message_class = getattr(read, "__self__", None)

    def call(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            if message_class is None:
                raise
            return explain(data, message_class.DESCRIPTOR)

    return call


def _guard_unary(method: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            if isinstance(request, InvalidRequest):
                raise request
            return await method(request, context)
        except (grpc.aio.AbortError, grpc.RpcError):
            raise
        except Exception as error:
            await abort(context, error)

    return call


def _guard_stream(method: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            if isinstance(request, InvalidRequest):
                raise request
            responses = method(request, context)
            if inspect.iscoroutine(responses):  # writes to the context itself, as health's Watch does
                await responses
                return
            # Closed here and not by the garbage collector: a call that ends early must stop its work at once.
            async with aclosing(responses):
                async for response in responses:
                    yield response
        except (grpc.aio.AbortError, grpc.RpcError):
            raise
        except Exception as error:
            await abort(context, error)

    return call


def new_server(*services: str) -> tuple[grpc.aio.Server, HealthServicer]:
    """A grpc.aio server with error mapping, reflection of `services` (full names) and grpc.health.v1.

    Every service starts NOT_SERVING; set it on the returned health servicer when the process really serves.
    """
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=SERVER_OPTIONS)
    checker = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    for service in ("", *services):
        checker._server_status[service] = health_pb2.HealthCheckResponse.NOT_SERVING
    return server, checker


async def set_serving(checker: HealthServicer, serving: bool, *services: str) -> None:
    """Sets the health of the server as a whole and of each service."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for service in ("", *services):
        await checker.set(service, status)


def reachable_host(host: str) -> str:
    """The host by which others reach who listens on `host`: itself, or for a wildcard this machine's own address."""
    return socket.gethostbyname(socket.gethostname()) if host in WILDCARDS else host


def listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """Binds `host:port` (0: any free one) and returns the port. Raises OSError when it is taken."""
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}") from None
    if bound == 0:
        raise OSError(f"cannot listen on {host}:{port}: the port is taken")
    return bound
