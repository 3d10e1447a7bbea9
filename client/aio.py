"""The client for asyncio programs."""

# Timeouts here are gRPC deadlines, which travel to the server; asyncio.timeout would only stop the waiting.
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from ..core.servers import CHANNEL_OPTIONS
from ..proto.headway.v1 import inference_pb2_grpc
from . import calls
from .address import check_address
from .aio_stream import AsyncGenerationStream
from .deadline import Deadline
from .embeddings import Embeddings, EmbedOptions, Inputs
from .errors import from_rpc
from .options import GenerateOptions, Retry
from .requests import Conversation
from .values import Generation, Model, Tokens

Answer = TypeVar("Answer")


class AsyncHeadway:
    """A client of the router at `address` ("host:port" of its gRPC front). One connection, any number of calls.

    `timeout` is each call's deadline in seconds over all its attempts (`math.inf` for none); every method takes its
    own. Raises the tree of `core.errors`.
    """

    def __init__(self, address: str, *, timeout: float = 600.0, retry: Retry | None = None) -> None:
        self.address = check_address(address)
        Deadline(timeout)
        self._timeout = timeout
        self._retry = retry or Retry()
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    def generate_stream(
        self, prompt: str | Sequence[int], *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncGenerationStream:
        """Streams the continuation of a text, or of token ids."""
        return self._stream(calls.generate(prompt, options), timeout)

    async def generate(
        self, prompt: str | Sequence[int], *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """The whole continuation of a text, or of token ids."""
        async with self._stream(calls.generate(prompt, options), timeout) as stream:
            return await stream.result()

    def chat_stream(
        self,
        messages: Conversation,
        *,
        template_args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerationStream:
        """Streams the reply to a conversation, or to one message of the user."""
        return self._stream(calls.chat(messages, options, template_args), timeout)

    async def chat(
        self,
        messages: Conversation,
        *,
        template_args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """The whole reply to a conversation, or to one message of the user."""
        async with self._stream(calls.chat(messages, options, template_args), timeout) as stream:
            return await stream.result()

    async def embed(
        self, inputs: Inputs, *, timeout: float | None = None, **options: Unpack[EmbedOptions]
    ) -> Embeddings:
        """A vector for each input: a text or a list of token ids is one, a list of such is many."""
        return await self._unary(calls.embed(inputs, options), timeout)

    async def tokenize(
        self,
        text: str = "",
        *,
        messages: Conversation | None = None,
        model: str = "",
        add_special_tokens: bool = True,
        timeout: float | None = None,
    ) -> Tokens:
        """Token ids of a text, or of a conversation after the model's template."""
        return await self._unary(calls.tokenize(text, messages, model, add_special_tokens), timeout)

    async def detokenize(self, token_ids: Sequence[int], *, model: str = "", timeout: float | None = None) -> str:
        """The text of token ids."""
        return await self._unary(calls.detokenize(token_ids, model), timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models that the caller may use."""
        found, page_token = await self._unary(calls.list_models(""), timeout)
        while page_token:
            page, page_token = await self._unary(calls.list_models(page_token), timeout)
            found += page
        return found

    async def model(self, name: str = "", *, timeout: float | None = None) -> Model:
        """One model; with no name, the cluster's only one. Raises NotFound."""
        return await self._unary(calls.get_model(name), timeout)

    async def abort(self, *request_ids: str, timeout: float | None = None) -> list[str]:
        """Ends requests by id; returns those which were running."""
        return await self._unary(calls.abort(request_ids), timeout)

    async def close(self) -> None:
        """Closes the connection; what still streams on it is cancelled."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = self._stub = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _connected(self) -> Any:
        # Not in __init__: a grpc.aio channel belongs to the running loop, and clients are also made outside of one.
        if self._stub is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
            self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        return self._stub

    def _stream(self, call: calls.Streaming, timeout: float | None) -> AsyncGenerationStream:
        def open_call(remaining_s: float | None) -> Any:
            return getattr(self._connected(), call.method)(call.request, timeout=remaining_s)

        timeout = self._timeout if timeout is None else timeout
        return AsyncGenerationStream(open_call, timeout, self._retry, self.address, call.sequences)

    async def _unary(self, call: calls.Unary[Answer], timeout: float | None) -> Answer:
        deadline, attempt = Deadline(self._timeout if timeout is None else timeout), 0
        while True:
            attempt += 1
            try:
                method = getattr(self._connected(), call.method)
                return call.read(await method(call.request, timeout=deadline.remaining_s()))
            except grpc.RpcError as rpc_error:
                error = from_rpc(rpc_error, self.address)
            delay = self._retry.delay_s(attempt, error, deadline.remaining_s())
            if delay is None:
                raise error
            await asyncio.sleep(delay)
