"""The answer of /v1/completions."""

from __future__ import annotations

from typing import Any

from ...events import Delta, Started, TokenLogprob
from .logprobs import CompletionLogprobs, joined
from .replies import Reply, ids_of, text_of
from .requests import Wanted


class CompletionReply(Reply):
    """/v1/completions."""

    id_prefix = "cmpl-"
    stream_object = "text_completion"
    whole_object = "text_completion"
    text_key = b'"text":'
    text_end = b""

    def __init__(self, started: Started, wanted: Wanted) -> None:
        super().__init__(started, wanted)
        self._logprobs = [CompletionLogprobs(wanted.logprobs or 0) for _ in range(wanted.n)]

    def opening(self) -> bytes:
        """What is known of the prompt, for each choice; nothing when nobody asked."""
        told = self._of_prompt()
        if not told and not self.wanted.echo:
            return b""
        return b"".join([
            self.event(self.with_usage({**self.head, "choices": [self._echo(index) | told]}))
            for index in range(self.wanted.n)
        ])  # fmt: skip

    def _echo(self, index: int) -> dict[str, Any]:
        text, logprobs = self._prompt(index)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def _prompt(self, index: int) -> tuple[str, dict[str, Any] | None]:
        """What echo puts before a choice's own text."""
        if not self.wanted.echo:
            return "", None
        started = self.started
        if self.wanted.logprobs is None:
            return started.prompt_text, None
        places = started.prompt_logprobs
        return started.prompt_text, self._logprobs[index].echo(started.prompt_text, started.first_prompt_token, places)

    def logprobs(self, index: int, places: list[TokenLogprob]) -> dict[str, Any]:
        return self._logprobs[index].add(places)

    def closing_choice(self, finish: dict[str, Any]) -> dict[str, Any]:
        return {"text": "", **finish}

    def whole_choice(self, deltas: list[Delta], finish: dict[str, Any]) -> dict[str, Any]:
        index = finish["index"]
        text, logprobs = self._prompt(index)
        choice = {"text": text + text_of(deltas), **finish}
        if self.wanted.logprobs is not None:
            own = self.logprobs(index, [place for delta in deltas for place in delta.logprobs])
            choice["logprobs"] = own if logprobs is None else joined([logprobs, own])
        return choice | ({"token_ids": ids_of(deltas)} if self.wanted.token_ids else {}) | self._of_prompt()

    def _of_prompt(self) -> dict[str, Any]:
        ids = {"prompt_token_ids": self.started.prompt_token_ids} if self.wanted.token_ids else {}
        return ids | self.prompt_logprobs()
