"""What one model revision's text files can do: encode, decode, render a conversation, detokenize a stream."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jinja2
from tokenizers import Tokenizer

from ...core.errors import ConfigError, InvalidRequest
from ..validation.request import Message
from .content import SpelledTokens
from .detokenize import ByteDetokenizer, Detokenizer, PieceBytes, TokenBytes, WindowDetokenizer
from .template import ChatTemplate, load_template

# Our two threads are the bound on tokenizing at once; the library's own pool would take every core.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="text")

# Longer inputs go to a thread, so that the event loop waits at most about half a millisecond for one request.
INLINE_CHARACTERS = 1_000
INLINE_TOKENS = 2_000
CONTEXT_TOKENS = 6  # of the prompt's end, for detokenizers that look left


class ModelText:
    """The tokenizer and chat template of one model revision. Raises ConfigError when the files cannot be used."""

    def __init__(self, assets: Mapping[str, bytes]) -> None:
        if "tokenizer.json" not in assets:
            raise ConfigError("the model has no tokenizer.json: the router needs one in the `tokenizers` format")
        try:
            self._tokenizer = Tokenizer.from_buffer(assets["tokenizer.json"])
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"tokenizer.json cannot be read: {error}") from None
        # A checkpoint may carry the truncation of its training run; silently cut prompts are not an option here.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        try:
            self.template: ChatTemplate | None = load_template(assets)
        except (ValueError, KeyError, TypeError, jinja2.TemplateError) as error:
            raise ConfigError(f"the model's chat template cannot be read: {error}") from None
        self._special = frozenset(
            token_id for token_id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        )
        self._spelled = SpelledTokens(
            token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special
        )
        self._bytes = {
            skip: TokenBytes(self._tokenizer, self._special if skip else frozenset()) for skip in (True, False)
        }
        self._pieces: dict[int, bytes] = self._bytes[False]
        rules = json.loads(assets["tokenizer.json"])
        self._byte_level = _is_byte_level(rules.get("decoder"))
        if not self._byte_level:
            self._pieces = PieceBytes(self._tokenizer)
        self._longest_token = _longest_token(self._tokenizer, rules) if self._byte_level else 0

    def least_tokens(self, text: str) -> int:
        """A lower bound on the tokens of `text`, found without tokenizing: refuses the absurd cheaply."""
        return len(text) // self._longest_token if self._longest_token else 0

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
        if len(text) <= INLINE_CHARACTERS:
            return self._encode(text, add_special_tokens)
        return await asyncio.get_running_loop().run_in_executor(threads, self._encode, text, add_special_tokens)

    async def encode_all(self, texts: list[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of each text, by default with the model's own first tokens among them."""
        if sum(map(len, texts)) <= INLINE_CHARACTERS:
            return self._encode_all(texts, add_special_tokens)
        return await asyncio.get_running_loop().run_in_executor(threads, self._encode_all, texts, add_special_tokens)

    def _encode_all(self, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [one.ids for one in found]

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        # The batch call, unlike `encode`, lets go of the interpreter lock.
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        return ids

    async def bad_words(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of the sequences that spell each word, at the start of a text and after a space."""
        spelled = [prefix + word.strip() for word in words for prefix in ("", " ")]
        found = await self.encode_all(spelled, add_special_tokens=False)
        return list({tuple(ids): ids for ids in found if ids}.values())

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for by itself: not always whole characters. Nothing for an id without a token."""
        return self._pieces[token_id]

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included. Many ids take turns with the loop's other work."""
        if len(token_ids) <= INLINE_TOKENS:
            return self._decode(token_ids)
        if not self._byte_level:
            # Pieces would not do: what a run of byte tokens stands for depends on all of it.
            return await asyncio.get_running_loop().run_in_executor(threads, self._decode, token_ids)
        detokenizer, pieces = ByteDetokenizer(self._bytes[False]), []
        for start in range(0, len(token_ids), INLINE_TOKENS):
            pieces.append(detokenizer.feed(token_ids[start : start + INLINE_TOKENS]))
            await asyncio.sleep(0)
        return "".join([*pieces, detokenizer.flush()])

    def _decode(self, token_ids: Sequence[int]) -> str:
        # A list for the library; made by slices, between which a thread gives up the interpreter lock.
        ids = [
            one for start in range(0, len(token_ids), INLINE_TOKENS) for one in token_ids[start : start + INLINE_TOKENS]
        ]
        text: str = self._tokenizer.decode_batch([ids], skip_special_tokens=False)[0]
        return text

    async def render(
        self, messages: list[Message], args: Mapping[str, Any], *, args_field: str, messages_field: str
    ) -> list[str]:
        """The conversation as the model's template writes it, in the pieces that are to be tokenized by themselves.

        One piece, but for messages that spell special tokens (see `content`). Raises InvalidRequest, also when there is
        no template.
        """
        template = self.template
        if template is None:
            raise InvalidRequest(
                f"{messages_field}: this model has no chat template; send a prompt instead", field=messages_field
            )

        def write() -> list[str]:
            marked, mark = self._spelled.marked(messages)
            text = template.render(marked, args, args_field, messages_field)
            return text.split(mark) if mark else [text]

        if sum(len(message.content or "") for message in messages) + 100 * len(messages) <= 10 * INLINE_CHARACTERS:
            return write()
        return await asyncio.get_running_loop().run_in_executor(threads, write)

    async def encode_pieces(self, pieces: list[str]) -> list[int]:
        """Token ids of pieces that `render` gave: a template writes the model's own first tokens itself."""
        if len(pieces) == 1:
            return await self.encode(pieces[0], add_special_tokens=False)
        return [token_id for ids in await self.encode_all(pieces, add_special_tokens=False) for token_id in ids]

    def detokenizer(self, prompt_ids: Sequence[int], *, skip_special_tokens: bool) -> Detokenizer:
        """A detokenizer for output that follows `prompt_ids`."""
        if self._byte_level:
            return ByteDetokenizer(self._bytes[skip_special_tokens])
        skip = self._special if skip_special_tokens else frozenset[int]()
        return WindowDetokenizer(self._tokenizer, skip, prompt_ids[-CONTEXT_TOKENS:])


def _is_byte_level(decoder: dict[str, Any] | None) -> bool:
    """Whether decoding is nothing but joining the tokens' bytes."""
    if not decoder:
        return False
    if decoder["type"] == "Sequence":
        return bool(decoder["decoders"]) and all(_is_byte_level(part) for part in decoder["decoders"])
    return bool(decoder["type"] == "ByteLevel")


def _longest_token(tokenizer: Tokenizer, rules: dict[str, Any]) -> int:
    """Characters that one token can cover at most; 0 when that is not known.

    A token of a byte-level vocabulary has one character a byte, and a character of text is at least one byte.
    """
    blank_eaters = any(token["lstrip"] or token["rstrip"] for token in rules.get("added_tokens", ()))
    if rules.get("normalizer") or blank_eaters:
        return 0
    return max(map(len, tokenizer.get_vocab()), default=0)
