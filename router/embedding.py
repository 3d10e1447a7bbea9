"""The one path of an embedding request that both fronts share: check, tokenize, fan out, finish the vectors.

Each input is a request of its own to the engines, placed by the policy and placed again when its replica dies: nothing
of it has been delivered, so asking again is all that failover takes. All run on one revision of the model, because
vectors of two cannot be compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import cast

import msgspec
import numpy as np

from ..core.errors import Cancelled, DeadlineExceeded, Internal, NotFound, Overloaded
from ..proto.headway.v1 import sampling_pb2
from .observer import RequestObserver, RequestRecord, reason_of
from .running import RunningIds
from .text.library import TextLibrary
from .text.model import ModelText
from .types import Catalogue, Dispatcher, EngineRequest, ServedModel, TokenChunk
from .validation.embedding import (
    UserEmbedding,
    check_dimensions,
    check_embedding,
    check_input,
    input_too_long,
    resolve_embedding,
)

# Inputs of one request that are with the engines at a time: enough for a step's budget of short ones on a few replicas.
CONCURRENCY = 64
# Characters that are tokenized in one go, so that the texts of other requests get their turn.
TEXT_SLICE = 50_000
RETRY_S = 0.05


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """One vector for each input, in order, as little-endian float32; counts are sums over all inputs."""

    request_id: str
    model: str
    model_revision: str
    vectors: list[bytes]
    prompt_tokens: int
    cached_tokens: int
    first_s: float
    total_s: float
    migrations: int
    preemptions: int


class EmbeddingHandler:
    """Serves embedding requests of both fronts."""

    def __init__(
        self,
        catalogue: Catalogue,
        dispatcher: Dispatcher,
        observer: RequestObserver,
        texts: TextLibrary,
        running: RunningIds,
    ) -> None:
        self._catalogue = catalogue
        self._dispatcher = dispatcher
        self._observer = observer
        self._texts = texts
        self._running = running

    async def run(self, request: UserEmbedding, *, front: str, method: str, deadline: float | None = None) -> Embedded:
        """The whole answer. Cancelling it stops the inputs that are with the engines.

        `deadline` is in seconds of the loop's clock. Raises the tree of core/errors.py; Cancelled after Abort.
        """
        record = RequestRecord(front=front, method=method, arrived_at=time.perf_counter(), model=request.model)
        self._observer.arrived(record)
        try:
            async with _until(deadline):
                model, engines = await self._prepare(request, record, deadline)
                with self._running.alone(record.request_id, request.names["request_id"]):
                    vectors = await _FanOut(self._dispatcher, request, model, record).run(engines)
            record.finish_reason = sampling_pb2.FINISH_REASON_EMBEDDED
        except BaseException as error:
            record.error = reason_of(error)
            raise
        finally:
            record.ended_at = time.perf_counter()
            self._observer.ended(record)
        return Embedded(
            request_id=record.request_id,
            model=model.name,
            model_revision=model.revision,
            vectors=vectors,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            first_s=record.first_token_at - record.arrived_at,
            total_s=record.ended_at - record.arrived_at,
            migrations=record.migrations,
            preemptions=record.preemptions,
        )

    async def _prepare(
        self, request: UserEmbedding, record: RequestRecord, deadline: float | None
    ) -> tuple[ServedModel, list[EngineRequest]]:
        check_embedding(request)
        try:
            model = self._catalogue.get(request.model)
        except NotFound as error:
            raise NotFound(error.message, field=request.names["model"]) from None
        record.model = model.name
        check_dimensions(request, model)
        inputs = await _token_ids(request, model, await self._texts.get(model))
        engines = resolve_embedding(request, model, inputs, deadline)
        record.request_id = engines[0].request_id
        record.prompt_tokens = sum(map(len, inputs))
        return model, engines


class _FanOut:
    """The inputs of one request on their way."""

    def __init__(
        self, dispatcher: Dispatcher, request: UserEmbedding, model: ServedModel, record: RequestRecord
    ) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._model = model
        self._record = record
        self._out = 0

    async def run(self, engines: list[EngineRequest]) -> list[bytes]:
        """All vectors in order. The first failure ends the rest."""
        vectors = [b""] * len(engines)
        waiting = iter(enumerate(engines))

        async def take_turns() -> None:
            for index, engine in waiting:
                vectors[index] = self._vector(await self._embed(engine))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONCURRENCY, len(engines))):
                    group.create_task(take_turns())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return vectors

    async def _embed(self, engine: EngineRequest) -> TokenChunk:
        while True:
            self._out += 1
            try:
                return await self._ask(engine)
            except Overloaded:
                # What fills the queues may well be the other inputs of this very request.
                if self._out == 1:
                    raise
            finally:
                self._out -= 1
            await asyncio.sleep(RETRY_S)

    async def _ask(self, engine: EngineRequest) -> TokenChunk:
        stream = cast("AsyncGenerator[TokenChunk]", self._dispatcher.stream(engine))
        async with aclosing(stream):
            async for chunk in stream:
                if chunk.finish_reason == sampling_pb2.FINISH_REASON_EMBEDDED:
                    return chunk
                if chunk.finish_reason == sampling_pb2.FINISH_REASON_ABORTED:
                    raise Cancelled("Abort stopped the request")
        raise Internal("the replica's stream ended without an embedding")

    def _vector(self, chunk: TokenChunk) -> bytes:
        record, size = self._record, self._model.embedding_size
        if len(chunk.embedding) != 4 * size:
            raise Internal(f"the replica sent {len(chunk.embedding)} bytes for {size} values")
        if record.first_token_at == 0.0:
            record.first_token_at = time.perf_counter()
            record.replica_id = chunk.replica_id
        record.cached_tokens += chunk.cached_tokens
        record.migrations += chunk.migrations
        record.preemptions += chunk.preemptions
        return finish_vector(chunk.embedding, self._request.dimensions, self._request.normalize)


def finish_vector(raw: bytes, dimensions: int | None, normalize: bool) -> bytes:
    """The first `dimensions` values (all for None), at length 1 with `normalize`; float32, little-endian, both ways.

    A vector of zeros stays one. Raises Internal for values that are not finite: JSON has no word for them.
    """
    values = np.frombuffer(raw, "<f4")[:dimensions]
    if not np.isfinite(values).all():
        raise Internal("the model gave an embedding that is not finite")
    if normalize:
        exact = values.astype(np.float64)
        length = float(np.linalg.norm(exact))
        if length > 0.0:
            values = (exact / length).astype("<f4")
    return values.tobytes()


async def _token_ids(request: UserEmbedding, model: ServedModel, text: ModelText) -> list[list[int]]:
    """Token ids of every input, checked as they come, so that an absurd list is not tokenized to its end."""
    found: list[list[int]] = []
    total = 0
    for part in _slices(request.inputs):
        texts = []
        for index, one in enumerate(part, len(found)):
            if isinstance(one, str):
                if (least := text.least_tokens(one)) > model.max_context_tokens:
                    raise input_too_long(request, model, index, f"at least {least}")
                texts.append(one)
        encoded = iter(await text.encode_all(texts))
        for one in part:
            token_ids = next(encoded) if isinstance(one, str) else one
            check_input(request, model, len(found), token_ids, total)
            found.append(token_ids)
            total += len(token_ids)
        await asyncio.sleep(0)
    return found


def _slices(inputs: Sequence[str | list[int] | None]) -> Iterator[list[str | list[int]]]:
    """The inputs in order, in lists of at most TEXT_SLICE characters and ids, or of one input."""
    part: list[str | list[int]] = []
    size = 0
    for one in inputs:
        assert one is not None, "checked"
        if part and size + len(one) > TEXT_SLICE:
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one)
    yield part


@asynccontextmanager
async def _until(deadline: float | None) -> AsyncIterator[None]:
    """Cancels what is inside when the deadline passes, and says so."""
    try:
        async with asyncio.timeout_at(deadline) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the deadline passed before all inputs were embedded") from None
