"""Token ids to text as they come: never half a character, and in the end the same text as decoding all at once."""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Sequence
from typing import Protocol

from tokenizers import Tokenizer

REPLACEMENT = "�"
# As SentencePiece writes a space, and a byte that is no character.
WORD_START = "\u2581"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Detokenizer(Protocol):
    """One request's tokens on their way to text."""

    def feed(self, token_ids: Sequence[int]) -> str:
        """Takes new tokens, returns the text that is complete now; what is incomplete waits for the next call."""
        ...

    def flush(self) -> str:
        """The rest, once no more tokens will come: an incomplete character becomes U+FFFD."""
        ...


class TokenBytes(dict[int, bytes]):
    """The bytes of each token of a byte-level tokenizer, filled as they are asked for."""

    def __init__(self, tokenizer: Tokenizer, skip: frozenset[int]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._skip = skip

    def __missing__(self, token_id: int) -> bytes:
        token = None if token_id in self._skip else self._tokenizer.id_to_token(token_id)
        data = b"" if token is None else bytes_of(token)
        self[token_id] = data
        return data


class PieceBytes(dict[int, bytes]):
    """The bytes of each token of any other tokenizer, as far as a token by itself tells them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id) or ""
        byte = _BYTE_TOKEN.fullmatch(token)
        data = bytes([int(byte[1], 16)]) if byte else token.replace(WORD_START, " ").encode()
        self[token_id] = data
        return data


class ByteDetokenizer:
    """For byte-level tokenizers, which nearly all of today's models have: a table and a UTF-8 decoder."""

    def __init__(self, table: TokenBytes) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_ids: Sequence[int]) -> str:
        table = self._table
        if len(token_ids) == 1:
            return self._decoder.decode(table[token_ids[0]])
        return self._decoder.decode(b"".join([table[token_id] for token_id in token_ids]))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For every other tokenizer: decodes a short window twice and returns the difference.

    The window begins at the tokens of the last piece that was returned, so that decoders which look at a token's left
    neighbour (leading spaces) see it; its length does not grow with the output. `context` are tokens before the first:
    the end of the prompt, so that a first word keeps its space.
    """

    # A character has at most four bytes, so that four tokens of an incomplete one are not incomplete but invalid.
    MAX_HELD = 4
    WIDEST = 16

    def __init__(self, tokenizer: Tokenizer, skip: frozenset[int], context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._skip = skip
        self._window = [token_id for token_id in context if token_id not in skip]
        self._shown = len(self._window)  # tokens of the window whose text was returned
        self._shown_text = self._decode(self._window)

    def feed(self, token_ids: Sequence[int]) -> str:
        return "".join([self._feed_one(token_id) for token_id in token_ids])

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text

    def _feed_one(self, token_id: int) -> str:
        # Tokens without text stay out of the window: it would grow with a run of them.
        if token_id in self._skip or self._tokenizer.id_to_token(token_id) is None:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(REPLACEMENT) and len(self._window) - self._shown < self.MAX_HELD:
            return ""
        return self._advance(text)

    def _advance(self, text: str) -> str:
        new = text[len(self._shown_text) :]
        if new:
            del self._window[: self._shown]
        elif len(self._window) > self.WIDEST:  # a run of tokens that decode to nothing
            del self._window[: -self.MAX_HELD]
        self._shown = len(self._window)
        self._shown_text = self._decode(self._window)
        return new

    def flush(self) -> str:
        return self._advance(self._decode(self._window))


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: the printable character that stands for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def bytes_of(token: str) -> bytes:
    """The bytes for which a token of a byte-level vocabulary stands; added tokens may be plain text instead."""
    alphabet = byte_alphabet()
    try:
        return bytes([alphabet[character] for character in token])
    except KeyError:
        return token.encode()
