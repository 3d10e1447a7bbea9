"""One request's stream for programs with threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from ..proto.headway.v1 import inference_pb2 as pb
from .calls import Streaming
from .deadline import Deadline
from .errors import cut_short, from_rpc
from .options import Retry
from .transcript import Transcript
from .values import Delta, Finish, Generation, Started, Usage


class GenerationStream:
    """The tokens of one request as they come: iterate for `Delta`s, or `stream.result()` for all the rest.

    `started` is set before the first delta, `finish` (of the first sequence) and `usage` after the last; the deltas
    of several sequences come mixed and say their `index`. Leaving the `with`, or
    `close`, ends the request on the server too.
    """

    def __init__(
        self, open_call: Callable[[float | None], Any], timeout: float, retry: Retry, address: str, sequences: int = 1
    ) -> None:
        self._open_call = open_call
        self._deadline = Deadline(timeout)
        self._retry = retry
        self._address = address
        self._attempt = 0
        self._call: Any = None
        self._transcript = Transcript(sequences)
        self._began = self._ended = False

    @property
    def started(self) -> Started | None:
        return self._transcript.started

    @property
    def finish(self) -> Finish | None:
        return self._transcript.finishes.get(0)

    @property
    def finishes(self) -> Mapping[int, Finish]:
        """How each sequence that has ended did, by its index."""
        return self._transcript.finishes

    @property
    def usage(self) -> Usage | None:
        return self._transcript.usage

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        while not self._ended:
            response = self._read()
            if response is None:
                break
            delta = self._transcript.take(response)
            if delta is not None:
                return delta
        raise StopIteration

    def _read(self) -> pb.GenerateResponse | None:
        """The next message, over as many attempts as are safe; None at the stream's end."""
        while True:
            if self._call is None:
                self._attempt += 1
                self._call = self._open_call(self._deadline.remaining_s())
            try:
                message = next(self._call, None)
            except grpc.RpcError as rpc_error:
                time.sleep(self._delay_or_raise(rpc_error))
                self._call = None
                continue
            if message is None:
                self._end()
                return None
            self._began = True
            return Streaming.unwrap(message)

    def _delay_or_raise(self, rpc_error: grpc.RpcError) -> float:
        error = from_rpc(rpc_error, self._address)
        delay = None if self._began else self._retry.delay_s(self._attempt, error, self._deadline.remaining_s())
        if delay is None:
            self._ended = True
            raise error from None
        return delay

    def _end(self) -> None:
        closed, self._ended = self._ended, True
        if not closed and not self._transcript.complete:
            raise cut_short(self._address)

    def result(self) -> Generation:
        """Reads to the end and returns what this call read, as one answer."""
        return self._transcript.whole(list(self))

    def close(self) -> None:
        """Ends the request, if it has not ended."""
        self._ended = True
        if self._call is not None:
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
