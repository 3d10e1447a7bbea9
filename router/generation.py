"""One request's output: from the chunks of tokens that a replica sends to the events that its caller sees."""

from __future__ import annotations

import time

from ..proto.headway.v1 import sampling_pb2
from .events import Delta, Event, Finished, Started
from .observer import RequestObserver, RequestRecord
from .text.model import ModelText
from .text.output import OutputText
from .text.stops import StopMatcher, StopStrings
from .types import EngineRequest, ServedModel, TokenChunk
from .validation.request import UserRequest


class Generation:
    """Feeds on chunks until `finished`, which a finish reason of the engine or a stop string sets.

    The text of a token that ended the sequence (the model's end token or one of `stop_token_ids`) is shown only when
    the caller asked to include stop strings; it counts as output and is among the token ids in any case.
    """

    def __init__(
        self, request: UserRequest, engine: EngineRequest, model: ServedModel, text: ModelText,
        record: RequestRecord, observer: RequestObserver,
    ) -> None:  # fmt: skip
        self._request = request
        self._engine = engine
        self._revision = model.revision
        self._record = record
        self._observer = observer
        stops = request.stop_strings
        matcher = StopMatcher(StopStrings(stops), request.include_stop_string) if stops else None
        self._text: OutputText | None = None
        if request.want_text or matcher is not None:
            detokenizer = text.detokenizer(engine.token_ids, skip_special_tokens=request.skip_special_tokens)
            self._text = OutputText(detokenizer, matcher)
        self._reported = 0  # output position of the first token that no delta covered yet
        self._stop_token_id: int | None = None
        self._begun = False
        self.finished = False

    def take(self, chunk: TokenChunk) -> list[Event]:
        """The events that one chunk gives, `Finished` not among them."""
        last = chunk.finish_reason != sampling_pb2.FINISH_REASON_UNSPECIFIED
        started = None if self._begun else self._started(chunk)
        ids = chunk.token_ids
        text, used = self._shown(ids, chunk, last)
        if used < len(ids):
            ids = ids[:used]
        self._count(len(ids))
        events: list[Event] = [] if started is None else [started]
        if (text and self._request.want_text) or (ids and self._request.want_token_ids):
            total = self._record.completion_tokens
            events.append(Delta(text if self._request.want_text else "", ids, self._reported, total))
            self._reported = total
        if last or self.stop_string is not None:
            self._end(chunk)
        return events

    @property
    def stop_string(self) -> str | None:
        return None if self._text is None else self._text.stop_string

    def _shown(self, ids: list[int], chunk: TokenChunk, last: bool) -> tuple[str, int]:
        """Text to show, and how many of the chunk's tokens belong to the output."""
        output = self._text
        if output is None:
            return "", len(ids)
        hidden = last and chunk.stop_token_id is not None and not self._request.include_stop_string
        if not hidden:
            text, used = output.feed(ids)
        else:
            text, used = output.feed(ids[:-1])
            if output.stop_string is None:
                used = len(ids)
        if last and output.stop_string is None:
            text += output.flush()
        return text, used

    def _started(self, chunk: TokenChunk) -> Started:
        self._begun = True
        record = self._record
        record.replica_id = chunk.replica_id
        record.cached_tokens = chunk.cached_tokens
        return Started(
            request_id=self._engine.request_id,
            model=self._engine.model,
            model_revision=self._revision,
            prompt_token_ids=self._engine.token_ids,
            cached_tokens=chunk.cached_tokens,
            seed=self._engine.sampling.seed,
            replica_id=chunk.replica_id,
        )

    def _count(self, tokens: int) -> None:
        if not tokens:  # the end of a request may come alone
            return
        record = self._record
        record.completion_tokens += tokens
        now = time.perf_counter()
        if record.first_token_at == 0.0:
            record.first_token_at = record.last_token_at = now
            self._observer.first_token(record)
        else:
            self._observer.tokens(record, tokens, now - record.last_token_at)
            record.last_token_at = now

    def _end(self, chunk: TokenChunk) -> None:
        record = self._record
        if self.stop_string is not None:
            record.finish_reason = sampling_pb2.FINISH_REASON_STOP
        else:
            record.finish_reason = chunk.finish_reason
            self._stop_token_id = chunk.stop_token_id
        record.migrations = chunk.migrations
        record.preemptions = chunk.preemptions
        self.finished = True

    def finish(self) -> Finished:
        """The last event."""
        record = self._record
        return Finished(
            reason=record.finish_reason,
            stop_string=self.stop_string,
            stop_token_id=self._stop_token_id,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
            first_token_s=max(0.0, record.first_token_at - record.arrived_at),
            total_s=time.perf_counter() - record.arrived_at,
            migrations=record.migrations,
            preemptions=record.preemptions,
        )
