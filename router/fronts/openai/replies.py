"""What both endpoints answer, whole or as server-sent events."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec

from ....proto.headway.v1 import sampling_pb2
from ...events import Delta, Finished, Started
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

    def __init__(self, started: Started, wanted: Wanted) -> None:
        self.started = started
        self.wanted = wanted
        self.head = {
            "id": self.id_prefix + started.request_id,
            "object": self.stream_object if wanted.stream else self.whole_object,
            "created": int(time.time()),
            "model": started.model,
        }
        head = encode(self.head)[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":0,' + self.text_key
        self._after = self.text_end + b',"logprobs":null,"finish_reason":null'
        self._tail = b',"usage":null}\n\n' if wanted.usage else b"}\n\n"

    text_key: ClassVar[bytes]
    text_end: ClassVar[bytes]

    @abstractmethod
    def opening(self) -> bytes:
        """Events before the first text."""

    @abstractmethod
    def closing_choice(self, finish: dict[str, Any]) -> dict[str, Any]:
        """The only choice of the event that carries the finish reason."""

    @abstractmethod
    def whole_choice(self, text: str, token_ids: list[int], finish: dict[str, Any]) -> dict[str, Any]:
        """The only choice of an answer that is not streamed."""

    def delta(self, event: Delta) -> bytes:
        """One event with new text."""
        parts = [self._before, encode(event.text), self._after]
        if self.wanted.token_ids:
            parts += (b',"token_ids":', encode(event.token_ids))
        parts.append(b"}]")
        if self.wanted.usage_in_chunks:
            parts += (b',"usage":', encode(self._usage(event.total, self.started.cached_tokens)), b"}\n\n")
        else:
            parts.append(self._tail)
        return b"".join(parts)

    def closing(self, event: Finished) -> bytes:
        """The last events: the finish reason, the usage when asked for, and [DONE]."""
        usage = self._usage(event.completion_tokens, event.cached_tokens)
        last: dict[str, Any] = {**self.head, "choices": [self.closing_choice(_finish(event))]}
        if self.wanted.usage_in_chunks:
            last["usage"] = usage
        elif self.wanted.usage:
            last["usage"] = None
        events = self.event(last)
        if self.wanted.usage:
            events += self.event({**self.head, "choices": [], "usage": usage})
        return events + DONE

    def whole(self, deltas: list[Delta], event: Finished) -> bytes:
        """The answer of a request that is not streamed."""
        text = "".join([delta.text for delta in deltas])
        ids = [token_id for delta in deltas for token_id in delta.token_ids] if self.wanted.token_ids else []
        usage = self._usage(event.completion_tokens, event.cached_tokens)
        body = {**self.head, "choices": [self.whole_choice(text, ids, _finish(event))], "usage": usage}
        return encode(body | self.top_level())

    def top_level(self) -> dict[str, Any]:
        """Further fields beside the choices."""
        return {}

    def event(self, value: dict[str, Any]) -> bytes:
        return b"data: " + encode(value) + b"\n\n"

    def _usage(self, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
        prompt_tokens = len(self.started.prompt_token_ids)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }


def _finish(event: Finished) -> dict[str, Any]:
    """`stop_reason` is vLLM's: the stop string or stop id that matched."""
    matched: str | int | None = event.stop_string
    if matched is None and event.reason == sampling_pb2.FINISH_REASON_STOP:
        matched = event.stop_token_id
    return {"logprobs": None, "finish_reason": FINISH_REASONS[event.reason], "stop_reason": matched}


class ChatReply(Reply):
    """/v1/chat/completions."""

    id_prefix = "chatcmpl-"
    stream_object = "chat.completion.chunk"
    whole_object = "chat.completion"
    text_key = b'"delta":{"content":'
    text_end = b"}"

    def opening(self) -> bytes:
        """The role comes first, in an event of its own."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        value = {**self.head, "choices": [choice], **self.top_level()}
        if self.wanted.usage_in_chunks:
            value["usage"] = self._usage(0, self.started.cached_tokens)
        elif self.wanted.usage:
            value["usage"] = None
        return self.event(value)

    def closing_choice(self, finish: dict[str, Any]) -> dict[str, Any]:
        return {"index": 0, "delta": {}, **finish}

    def whole_choice(self, text: str, token_ids: list[int], finish: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, **finish}
        return choice | ({"token_ids": token_ids} if self.wanted.token_ids else {})

    def top_level(self) -> dict[str, Any]:
        return {"prompt_token_ids": self.started.prompt_token_ids} if self.wanted.token_ids else {}


class CompletionReply(Reply):
    """/v1/completions."""

    id_prefix = "cmpl-"
    stream_object = "text_completion"
    whole_object = "text_completion"
    text_key = b'"text":'
    text_end = b""

    def opening(self) -> bytes:
        if not self.wanted.token_ids:
            return b""
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": None, **self._prompt_ids()}
        return self.event({**self.head, "choices": [choice]})

    def closing_choice(self, finish: dict[str, Any]) -> dict[str, Any]:
        return {"index": 0, "text": "", **finish}

    def whole_choice(self, text: str, token_ids: list[int], finish: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "text": text, **finish}
        return choice | ({"token_ids": token_ids, **self._prompt_ids()} if self.wanted.token_ids else {})

    def _prompt_ids(self) -> dict[str, Any]:
        return {"prompt_token_ids": self.started.prompt_token_ids}
