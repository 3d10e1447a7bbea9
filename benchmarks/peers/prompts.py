"""Random prompts that are the same tokens to every server, whether it takes ids or only text."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

from .checkpoints import DEMO

# Below are the special tokens.
FIRST_ID = 10
TRIES = 1000


class Prompts:
    """Drawn from the demo tokenizer's ids, which every one of these models has. No two of one `seed` are the same."""

    def __init__(self, seed: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
        self._size = self._tokenizer.get_vocab_size()
        self._draw = np.random.default_rng(seed)

    def draw(self, tokens: int, after: list[int] | None = None) -> list[int]:
        """So many ids, of which `after` are the first, that come back when their text is tokenized."""
        begin = after or []
        for _ in range(TRIES):
            more = self._encode(self._decode(self._ids(tokens)))
            ids = (begin + more)[:tokens]
            if len(ids) == tokens and self._encode(self._decode(ids)) == ids:
                return ids
        raise RuntimeError(f"no {tokens} tokens after {begin[-5:]} survive their text")

    def text(self, ids: list[int]) -> str:
        return self._decode(ids)

    def _ids(self, count: int) -> list[int]:
        found: list[int] = self._draw.integers(FIRST_ID, self._size, count).tolist()
        return found

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids
