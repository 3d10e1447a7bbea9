"""What a message says is never a control token: special tokens that are spelled in it become ordinary text.

A tokenizer that is given a whole conversation cannot tell the template's special tokens from those which somebody wrote
into a message to end their turn and begin another's. So each one in a message gets a mark after its first character;
after the template has run, the text is cut at the marks and tokenized piece by piece, and no piece holds it whole. The
template sees the message but for the marks: what it trims or repeats stays as it is. A text without special tokens,
nearly every one, is tokenized as ever. Not broken up: special tokens of one character, those which only a tokenizer's
normalizer would make of other text, and those of which one half is the message's and the other the template's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from ..validation.request import Message

# Characters that no text has; should one have them all, a private one does.
_MARKS = (range(0xFDD0, 0xFDF0), range(0xF0000, 0xFFFFE))


class SpelledTokens:
    """Finds the special tokens of one tokenizer in messages."""

    def __init__(self, tokens: Iterable[str]) -> None:
        trie: dict[str, Any] = {}
        for token in tokens:
            if len(token) > 1:
                node = trie
                for character in token:
                    node = node.setdefault(character, {})
                node[""] = {}
        # What follows the first character is only looked at, so that tokens which overlap are all found.
        firsts = [f"{re.escape(character)}(?={_pattern(rest)})" for character, rest in trie.items()]
        self._pattern = re.compile("|".join(firsts)) if firsts else None

    def marked(self, messages: Sequence[Message]) -> tuple[list[Message], str]:
        """The messages with the mark inside every special token, and the mark: empty when there was none to break."""
        pattern = self._pattern
        contents = [message.content or "" for message in messages]
        if pattern is None or not any(map(pattern.search, contents)):
            return list(messages), ""
        mark = next(character for character in _marks() if not any(character in content for content in contents))
        broken = [pattern.sub(lambda found: found[0] + mark, content) for content in contents]
        return [
            msgspec.structs.replace(message, content=content) for message, content in zip(messages, broken, strict=True)
        ], mark


def _marks() -> Iterator[str]:
    return map(chr, chain(*_MARKS))


def _pattern(node: dict[str, Any]) -> str:
    """Of a trie's tokens, the shortest first: one that is there is enough. One character is looked at once."""
    if "" in node:
        return ""
    return "(?:" + "|".join(re.escape(character) + _pattern(rest) for character, rest in node.items()) + ")"
