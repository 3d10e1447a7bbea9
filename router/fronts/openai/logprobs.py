"""Log probabilities in OpenAI's two shapes, and those of the prompt in vLLM's."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from ...events import LogprobEntry, TokenLogprob

# JSON has no infinity; OpenAI writes this for what cannot come.
LEAST = -9999.0


def token_text(data: bytes) -> str:
    """A token as a string. One that is not whole characters is written as its bytes, as OpenAI does it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def finite(logprob: float) -> float:
    return max(logprob, LEAST)


def chat_logprobs(places: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""
    content = [
        {**_chat_entry(place.token), "top_logprobs": [_chat_entry(entry) for entry in place.top]} for place in places
    ]
    return {"content": content, "refusal": None}


def _chat_entry(entry: LogprobEntry) -> dict[str, Any]:
    return {"token": token_text(entry.text), "logprob": finite(entry.logprob), "bytes": list(entry.text)}


class CompletionLogprobs:
    """The `logprobs` of one completion choice: four lists that go on from piece to piece, with offsets in its text."""

    def __init__(self, alternatives: int) -> None:
        self._alternatives = alternatives
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def echo(self, text: str, first: bytes, places: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The prompt's: its first token follows nothing, so that it has no probability."""
        shown = token_text(first)
        offset = self._step(first) if text.startswith(shown) else 0  # the model's own first token is not in the text
        rest = self.add(places)
        return {
            "text_offset": [offset, *rest["text_offset"]],
            "token_logprobs": [None, *rest["token_logprobs"]],
            "tokens": [shown, *rest["tokens"]],
            "top_logprobs": [None, *rest["top_logprobs"]],
        }

    def add(self, places: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The piece for the tokens that follow."""
        return {
            "text_offset": [self._step(place.token.text) for place in places],
            "token_logprobs": [finite(place.token.logprob) for place in places],
            "tokens": [token_text(place.token.text) for place in places],
            "top_logprobs": [self._top(place) for place in places],
        }

    def _step(self, data: bytes) -> int:
        """Where the token begins in the text."""
        offset = self._offset
        self._offset += len(self._decoder.decode(data))
        return offset

    def _top(self, place: TokenLogprob) -> dict[str, float]:
        """The likeliest ones and the token itself, which may not be among them."""
        entries = [*place.top[: self._alternatives], place.token]
        return {token_text(entry.text): finite(entry.logprob) for entry in reversed(entries)}


def joined(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One value of the pieces of a completion choice."""
    return {
        name: [item for piece in pieces for item in piece[name]]
        for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs")
    }


def prompt_logprobs(places: Sequence[TokenLogprob], alternatives: int) -> list[dict[str, Any] | None]:
    """vLLM's: null for the first token, then by token id. The rank of a token that is not among the likeliest is not
    known."""
    return [None, *(_by_id(place, alternatives) for place in places)]


def _by_id(place: TokenLogprob, alternatives: int) -> dict[str, Any]:
    found: dict[str, Any] = {str(place.token.token_id): _ranked(place.token, None)}
    for rank, entry in enumerate(place.top, 1):
        own = entry.token_id == place.token.token_id
        if own or rank <= alternatives:
            found[str(entry.token_id)] = _ranked(entry, rank)
    return found


def _ranked(entry: LogprobEntry, rank: int | None) -> dict[str, Any]:
    return {"logprob": finite(entry.logprob), "rank": rank, "decoded_token": token_text(entry.text)}
