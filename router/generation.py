"""One sequence's output: from the chunks of tokens that a replica sends to the events that its caller sees."""

from __future__ import annotations

import time

from ..proto.headway.v1 import sampling_pb2
from .events import Delta, Finished, LogprobEntry, TokenLogprob
from .observer import RequestObserver, RequestRecord
from .text.model import ModelText
from .text.output import OutputText
from .text.stops import StopMatcher, StopStrings
from .types import EngineRequest, PlaceLogprobs, TokenChunk
from .validation.request import UserRequest


class Generation:
    """Feeds on chunks until `finished`, which a finish reason of the engine or a stop string sets.

    The text of a token that ended the sequence (the model's end token or one of `stop_token_ids`) is shown only when
    the caller asked to include stop strings; it counts as output and is among the token ids in any case.
    """

    def __init__(
        self, request: UserRequest, engine: EngineRequest, text: ModelText,
        record: RequestRecord, observer: RequestObserver, index: int = 0,
    ) -> None:  # fmt: skip
        self._request = request
        self._index = index
        self._record = record
        self._observer = observer
        self._model_text = text
        stops = request.stop_strings
        matcher = StopMatcher(StopStrings(stops), request.include_stop_string) if stops else None
        self._text: OutputText | None = None
        if request.want_text or matcher is not None:
            detokenizer = text.detokenizer(engine.token_ids, skip_special_tokens=request.skip_special_tokens)
            self._text = OutputText(detokenizer, matcher, request.min_new_tokens)
        self._want_tokens = request.want_token_ids or request.logprobs is not None
        self._tokens = 0
        self._last_token_at = 0.0
        self._reported = 0  # output position of the first token that no delta covered yet
        self._stop_token_id: int | None = None
        self.reason: sampling_pb2.FinishReason = sampling_pb2.FINISH_REASON_UNSPECIFIED

    @property
    def finished(self) -> bool:
        return bool(self.reason)

    def take(self, chunk: TokenChunk) -> Delta | None:
        """What one chunk has to show."""
        last = chunk.finish_reason != sampling_pb2.FINISH_REASON_UNSPECIFIED
        ids = chunk.token_ids
        text, used = self._shown(ids, chunk, last)
        if used < len(ids):
            ids = ids[:used]
        self._count(len(ids))
        delta = None
        if (text and self._request.want_text) or (ids and self._want_tokens):
            logprobs = [told(place, self._model_text) for place in chunk.logprobs[:used]]
            shown = text if self._request.want_text else ""
            delta = Delta(shown, ids, self._reported, self._record.completion_tokens, self._index, logprobs)
            self._reported = self._tokens
        if last or self.stop_string is not None:
            self._end(chunk)
        return delta

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

    def _count(self, tokens: int) -> None:
        if not tokens:  # the end of a sequence may come alone
            return
        self._tokens += tokens
        record = self._record
        record.completion_tokens += tokens
        now = time.perf_counter()
        record.last_token_at = now
        if record.first_token_at == 0.0:
            record.first_token_at = now
            self._observer.first_token(record)
        else:
            self._observer.tokens(record, tokens, now - (self._last_token_at or record.first_token_at))
        self._last_token_at = now

    def _end(self, chunk: TokenChunk) -> None:
        record = self._record
        if self.stop_string is not None:
            self.reason = sampling_pb2.FINISH_REASON_STOP
        else:
            self.reason = chunk.finish_reason
            self._stop_token_id = chunk.stop_token_id
        record.migrations += chunk.migrations
        record.preemptions += chunk.preemptions

    def finish(self) -> Finished:
        """The sequence's last event."""
        return Finished(
            reason=self.reason,
            stop_string=self.stop_string,
            stop_token_id=self._stop_token_id,
            index=self._index,
            total=self._record.completion_tokens,
        )


def told(place: PlaceLogprobs, text: ModelText) -> TokenLogprob:
    """A place's log probabilities with the bytes of its tokens."""
    own, *top = [LogprobEntry(token_id, logprob, text.token_bytes(token_id)) for token_id, logprob in place.entries]
    return TokenLogprob(own, top)
