"""The client for programs with threads; it may be shared between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from ..core.servers import CHANNEL_OPTIONS
from ..proto.headway.v1 import inference_pb2_grpc
from . import calls
from .address import check_address
from .deadline import Deadline
from .embeddings import Embeddings, EmbedOptions, Inputs
from .errors import from_rpc
from .options import GenerateOptions, Retry
from .requests import Conversation
from .sync_stream import GenerationStream
from .values import Generation, Model, Tokens

Answer = TypeVar("Answer")


class Headway:
    """A client of the router at `address` ("host:port" of its gRPC front). One connection, any number of calls.

    `timeout` is each call's deadline in seconds over all its attempts (`math.inf` for none); every method takes its
    own. Raises the tree of `core.errors`.
    """

    def __init__(self, address: str, *, timeout: float = 600.0, retry: Retry | None = None) -> None:
        self.address = check_address(address)
        Deadline(timeout)
        self._timeout = timeout
        self._retry = retry or Retry()
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: Any = None

    def generate_stream(
        self, prompt: str | Sequence[int], *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerationStream:
        """Streams the continuation of a text, or of token ids."""
        return self._stream(calls.generate(prompt, options), timeout)

    def generate(
        self, prompt: str | Sequence[int], *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """The whole continuation of a text, or of token ids."""
        with self._stream(calls.generate(prompt, options), timeout) as stream:
            return stream.result()

    def chat_stream(
        self,
        messages: Conversation,
        *,
        template_args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> GenerationStream:
        """Streams the reply to a conversation, or to one message of the user."""
        return self._stream(calls.chat(messages, options, template_args), timeout)

    def chat(
        self,
        messages: Conversation,
        *,
        template_args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """The whole reply to a conversation, or to one message of the user."""
        with self._stream(calls.chat(messages, options, template_args), timeout) as stream:
            return stream.result()

    def embed(self, inputs: Inputs, *, timeout: float | None = None, **options: Unpack[EmbedOptions]) -> Embeddings:
        """A vector for each input: a text or a list of token ids is one, a list of such is many."""
        return self._unary(calls.embed(inputs, options), timeout)

    def tokenize(
        self,
        text: str = "",
        *,
        messages: Conversation | None = None,
        model: str = "",
        add_special_tokens: bool = True,
        timeout: float | None = None,
    ) -> Tokens:
        """Token ids of a text, or of a conversation after the model's template."""
        return self._unary(calls.tokenize(text, messages, model, add_special_tokens), timeout)

    def detokenize(self, token_ids: Sequence[int], *, model: str = "", timeout: float | None = None) -> str:
        """The text of token ids."""
        return self._unary(calls.detokenize(token_ids, model), timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models that the caller may use."""
        found, page_token = self._unary(calls.list_models(""), timeout)
        while page_token:
            page, page_token = self._unary(calls.list_models(page_token), timeout)
            found += page
        return found

    def model(self, name: str = "", *, timeout: float | None = None) -> Model:
        """One model; with no name, the cluster's only one. Raises NotFound."""
        return self._unary(calls.get_model(name), timeout)

    def abort(self, *request_ids: str, timeout: float | None = None) -> list[str]:
        """Ends requests by id; returns those which were running."""
        return self._unary(calls.abort(request_ids), timeout)

    def close(self) -> None:
        """Closes the connection; what still streams on it is cancelled."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._stub = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> Any:
        # Not in __init__: a program may fork between making its clients and using them, and a channel does not survive.
        with self._lock:
            if self._stub is None:
                self._channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
                self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
            return self._stub

    def _stream(self, call: calls.Streaming, timeout: float | None) -> GenerationStream:
        def open_call(remaining_s: float | None) -> Any:
            return getattr(self._connected(), call.method)(call.request, timeout=remaining_s)

        timeout = self._timeout if timeout is None else timeout
        return GenerationStream(open_call, timeout, self._retry, self.address, call.sequences)

    def _unary(self, call: calls.Unary[Answer], timeout: float | None) -> Answer:
        deadline, attempt = Deadline(self._timeout if timeout is None else timeout), 0
        while True:
            attempt += 1
            try:
                method = getattr(self._connected(), call.method)
                return call.read(method(call.request, timeout=deadline.remaining_s()))
            except grpc.RpcError as rpc_error:
                error = from_rpc(rpc_error, self.address)
            delay = self._retry.delay_s(attempt, error, deadline.remaining_s())
            if delay is None:
                raise error
            time.sleep(delay)
