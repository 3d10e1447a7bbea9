"""What both endpoints answer, whole or as server-sent events."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec

from ....proto.headway.v1 import sampling_pb2
from ...events import Delta, Finished, Started, TokenLogprob, Usage
from .logprobs import prompt_logprobs
from .requests import Wanted

encode = msgspec.json.encode

FINISH_REASONS: dict[sampling_pb2.FinishReason, str] = {
    sampling_pb2.FINISH_REASON_EOS: "stop",
    sampling_pb2.FINISH_REASON_STOP: "stop",
    sampling_pb2.FINISH_REASON_LENGTH: "length",
    sampling_pb2.FINISH_REASON_CONTEXT: "length",
    sampling_pb2.FINISH_REASON_ABORTED: "abort",
}
DONE = b"data: [DONE]\n\n"


class Reply(ABC):
    """One request's answer. A chunk's bytes before and after its text are made once: only text is encoded a token."""

    id_prefix: ClassVar[str]
    stream_object: ClassVar[str]
    whole_object: ClassVar[str]
    text_key: ClassVar[bytes]
    text_end: ClassVar[bytes]

    def __init__(self, started: Started, wanted: Wanted) -> None:
        self.started = started
        self.wanted = wanted
        self.head = {
            "id": self.id_prefix + started.request_id,
            "object": self.stream_object if wanted.stream else self.whole_object,
            "created": int(time.time()),
            "model": started.model,
        }
        head = b"data: " + encode(self.head)[:-1] + b',"choices":[{"index":'
        self._before = [head + b"%d," % index + self.text_key for index in range(wanted.n)]
        self._after = self.text_end + b',"logprobs":'
        self._tail = b',"usage":null}\n\n' if wanted.usage else b"}\n\n"

    @abstractmethod
    def opening(self) -> bytes:
        """Events before the first text."""

    @abstractmethod
    def logprobs(self, index: int, places: list[TokenLogprob]) -> dict[str, Any]:
        """Those of a choice's next tokens."""

    @abstractmethod
    def closing_choice(self, finish: dict[str, Any]) -> dict[str, Any]:
        """The only choice of the event that carries a finish reason."""

    @abstractmethod
    def whole_choice(self, deltas: list[Delta], finish: dict[str, Any]) -> dict[str, Any]:
        """One of the choices of an answer that is not streamed."""

    def delta(self, event: Delta) -> bytes:
        """One event with new text."""
        if self.wanted.no_output:
            return b""
        parts = [self._before[event.index], encode(event.text), self._after]
        if self.wanted.logprobs is None or not event.logprobs:
            parts.append(b"null")
        else:
            parts.append(encode(self.logprobs(event.index, event.logprobs)))
        parts.append(b',"finish_reason":null')
        if self.wanted.token_ids:
            parts += (b',"token_ids":', encode(event.token_ids))
        parts.append(b"}]")
        if self.wanted.usage_in_chunks:
            parts += (b',"usage":', encode(self._usage(event.total, self.started.cached_tokens)), b"}\n\n")
        else:
            parts.append(self._tail)
        return b"".join(parts)

    def finished(self, event: Finished) -> bytes:
        """The event with a choice's finish reason."""
        last: dict[str, Any] = {**self.head, "choices": [self.closing_choice(_finish(event))]}
        if self.wanted.usage_in_chunks:
            last["usage"] = self._usage(event.total, self.started.cached_tokens)
        elif self.wanted.usage:
            last["usage"] = None
        return self.event(last)

    def closing(self, event: Usage) -> bytes:
        """The last events: the usage when asked for, and [DONE]."""
        if not self.wanted.usage:
            return DONE
        usage = self._usage(event.completion_tokens, event.cached_tokens)
        return self.event({**self.head, "choices": [], "usage": usage}) + DONE

    def whole(self, deltas: list[Delta], finished: list[Finished], usage: Usage) -> bytes:
        """The answer of a request that is not streamed."""
        of: list[list[Delta]] = [[] for _ in range(self.wanted.n)]
        for delta in () if self.wanted.no_output else deltas:
            of[delta.index].append(delta)
        ends = sorted(finished, key=lambda event: event.index)
        choices = [self.whole_choice(of[event.index], _finish(event)) for event in ends]
        counts = self._usage(usage.completion_tokens, usage.cached_tokens)
        return encode({**self.head, "choices": choices, "usage": counts} | self.top_level())

    def top_level(self) -> dict[str, Any]:
        """Further fields beside the choices."""
        return {}

    def event(self, value: dict[str, Any]) -> bytes:
        return b"data: " + encode(value) + b"\n\n"

    def with_usage(self, value: dict[str, Any]) -> dict[str, Any]:
        """An event before the first token, with the usage that its caller expects there."""
        if self.wanted.usage_in_chunks:
            return value | {"usage": self._usage(0, self.started.cached_tokens)}
        return value | ({"usage": None} if self.wanted.usage else {})

    def prompt_logprobs(self) -> dict[str, Any]:
        """vLLM's field, when asked for."""
        wanted = self.wanted.prompt_logprobs
        if wanted is None:
            return {}
        return {"prompt_logprobs": prompt_logprobs(self.started.prompt_logprobs, wanted)}

    def _usage(self, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
        prompt_tokens = len(self.started.prompt_token_ids)
        completion_tokens = 0 if self.wanted.no_output else completion_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }


def text_of(deltas: list[Delta]) -> str:
    return "".join([delta.text for delta in deltas])


def ids_of(deltas: list[Delta]) -> list[int]:
    return [token_id for delta in deltas for token_id in delta.token_ids]


def _finish(event: Finished) -> dict[str, Any]:
    """`stop_reason` is vLLM's: the stop string or stop id that matched."""
    matched: str | int | None = event.stop_string
    if matched is None and event.reason == sampling_pb2.FINISH_REASON_STOP:
        matched = event.stop_token_id
    return {
        "index": event.index,
        "logprobs": None,
        "finish_reason": FINISH_REASONS[event.reason],
        "stop_reason": matched,
    }
