"""A whole request's output: its sequences' events, framed by what is told once."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .events import Event, Started, Usage
from .generation import Generation, told
from .observer import RequestObserver, RequestRecord
from .text.model import ModelText
from .types import EngineRequest, ServedModel, TokenChunk
from .validation.request import UserRequest


class Answer:
    """Takes the chunks of all sequences, of which the first ever is sequence 0's."""

    def __init__(
        self, request: UserRequest, engine: EngineRequest, model: ServedModel, text: ModelText,
        record: RequestRecord, observer: RequestObserver, prompt_text: str = "",
    ) -> None:  # fmt: skip
        self._engine = engine
        self._revision = model.revision
        self._text = text
        self._record = record
        self._prompt_text = prompt_text
        self._begun = False
        self._sequences = [Generation(request, engine, text, record, observer, index) for index in range(request.n)]
        self._running = request.n

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return not self._running

    @property
    def completion_tokens(self) -> int:
        """Output tokens so far, of all sequences."""
        return self._record.completion_tokens

    def take(self, index: int, chunk: TokenChunk) -> Iterator[Event]:
        """The events that a chunk of sequence `index` gives, `Finished` not among them."""
        if not self._begun:
            yield self._started(chunk)
        delta = self._sequences[index].take(chunk)
        if delta is not None:
            yield delta

    def ended(self, index: int) -> bool:
        """Whether that sequence has ended, now with its last chunk or by a stop string."""
        return self._sequences[index].finished

    def end(self, index: int) -> Event:
        """The last event of a sequence that has ended."""
        self._running -= 1
        finished = self._sequences[index].finish()
        self._record.finish_reason = finished.reason
        return finished

    def _started(self, chunk: TokenChunk) -> Started:
        self._begun = True
        record, engine = self._record, self._engine
        record.replica_id = chunk.replica_id
        record.cached_tokens = chunk.cached_tokens
        return Started(
            request_id=engine.request_id,
            model=engine.model,
            model_revision=self._revision,
            prompt_token_ids=engine.token_ids,
            cached_tokens=chunk.cached_tokens,
            seed=engine.sampling.seed,
            replica_id=chunk.replica_id,
            prompt_logprobs=[told(place, self._text) for place in chunk.prompt_logprobs],
            prompt_text=self._prompt_text,
            first_prompt_token=self._text.token_bytes(engine.token_ids[0]) if chunk.prompt_logprobs else b"",
        )

    def usage(self) -> Usage:
        """The request's last event."""
        record = self._record
        return Usage(
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
            first_token_s=max(0.0, record.first_token_at - record.arrived_at),
            total_s=time.perf_counter() - record.arrived_at,
            migrations=record.migrations,
            preemptions=record.preemptions,
        )
