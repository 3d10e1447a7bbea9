"""What a stream has said so far, and the answer that it adds up to."""

from __future__ import annotations

from ..proto.headway.v1 import inference_pb2 as pb
from .responses import read_delta, read_finish, read_started, read_usage
from .values import Delta, Finish, GeneratedSequence, Generation, Started, Usage


class Transcript:
    """Of a request for `count` sequences. `take` gives the delta of a message, None for the messages around them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.started: Started | None = None
        self.finishes: dict[int, Finish] = {}
        self.usage: Usage | None = None
        self.request_id = ""

    def take(self, response: pb.GenerateResponse) -> Delta | None:
        self.request_id = response.request_id
        event = response.WhichOneof("event")
        if event == "delta":
            return read_delta(response.delta)
        if event == "started":
            self.started = read_started(response.request_id, response.started)
        elif event == "finished":
            self.finishes[response.finished.index] = read_finish(response.finished)
        elif event == "usage":
            self.usage = read_usage(response.usage)
        return None

    @property
    def complete(self) -> bool:
        """Whether the last messages came. A request that was aborted before its first token never started."""
        return self.usage is not None and all(index in self.finishes for index in range(self._count))

    def whole(self, deltas: list[Delta]) -> Generation:
        """The answer that `deltas` add up to; the stream must be complete."""
        assert self.complete and self.usage is not None
        sequences = [self._sequence(index, deltas) for index in range(self._count)]
        first = sequences[0]
        return Generation(
            request_id=self.request_id,
            text=first.text,
            token_ids=first.token_ids,
            finish=first.finish,
            started=self.started,
            usage=self.usage,
            sequences=sequences,
        )

    def _sequence(self, index: int, deltas: list[Delta]) -> GeneratedSequence:
        own = [delta for delta in deltas if delta.index == index]
        return GeneratedSequence(
            index=index,
            text="".join(delta.text for delta in own),
            token_ids=[token_id for delta in own for token_id in delta.token_ids],
            finish=self.finishes[index],
            logprobs=[place for delta in own for place in delta.logprobs],
        )
