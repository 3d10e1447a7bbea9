"""The answer of /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from ...events import Delta, TokenLogprob
from .logprobs import chat_logprobs
from .replies import Reply, ids_of, text_of


class ChatReply(Reply):
    """/v1/chat/completions."""

    id_prefix = "chatcmpl-"
    stream_object = "chat.completion.chunk"
    whole_object = "chat.completion"
    text_key = b'"delta":{"content":'
    text_end = b"}"

    def opening(self) -> bytes:
        """The role of each choice comes first, in an event of its own."""
        return b"".join([self._role(index) for index in range(self.wanted.n)])

    def _role(self, index: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        value = {**self.head, "choices": [choice], **({} if index else self.top_level())}
        return self.event(self.with_usage(value))

    def logprobs(self, index: int, places: list[TokenLogprob]) -> dict[str, Any]:
        return chat_logprobs(places)

    def closing_choice(self, finish: dict[str, Any]) -> dict[str, Any]:
        return {"delta": {}, **finish}

    def whole_choice(self, deltas: list[Delta], finish: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": text_of(deltas), "refusal": None}
        choice = {"message": message, **finish}
        if self.wanted.logprobs is not None:
            choice["logprobs"] = chat_logprobs([place for delta in deltas for place in delta.logprobs])
        return choice | ({"token_ids": ids_of(deltas)} if self.wanted.token_ids else {})

    def top_level(self) -> dict[str, Any]:
        ids = {"prompt_token_ids": self.started.prompt_token_ids} if self.wanted.token_ids else {}
        return ids | self.prompt_logprobs()
