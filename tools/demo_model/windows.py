"""From token streams to training windows: epochs in a seeded order, with noise at the borders of words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .special import END_OF_TEXT_ID

Stream = npt.NDArray[np.uint16]
BOUNDARY_NOISE = 0.03
CHAT_SHARE = 0.15


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Stream:
    """All texts as one stream of token ids; every text follows an end-of-text token, and one ends the stream."""
    ids = [END_OF_TEXT_ID]
    for encoding in tokenizer.encode_batch_fast(list(texts)):
        ids += encoding.ids
        ids.append(END_OF_TEXT_ID)
    return np.array(ids, dtype=np.uint16)


class BoundaryNoise:
    """Takes the leading space away from a few words and writes it as part of what is before them.

    A prompt that ends in a space (`def f(self, `) is split by the tokenizer in a way that never occurs inside a text,
    where the space belongs to the next word. Shown both ways now and then, the model can go on after either.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.get_vocab()
        size = tokenizer.get_vocab_size()
        self.space = vocabulary["Ġ"]
        self.without_space = np.zeros(size, dtype=np.uint16)  # 0: there is no such token
        self.one_space_more = np.zeros(size, dtype=np.uint16)
        for token, index in vocabulary.items():
            if token.startswith("Ġ") and token.strip("ĠĊ"):
                self.without_space[index] = vocabulary.get(token[1:], 0)
            elif not token.strip("ĠĊ"):
                self.one_space_more[index] = vocabulary.get(token + "Ġ", 0)

    def apply(self, stream: Stream, random: np.random.Generator) -> Stream:
        """A copy of the stream with about 3 % of its words moved off their spaces."""
        chosen = (random.random(len(stream)) < BOUNDARY_NOISE) & (self.without_space[stream] > 0)
        chosen[0] = False
        at = np.flatnonzero(chosen)
        noisy = stream.copy()
        longer = self.one_space_more[stream[at - 1]]
        noisy[at - 1] = np.where(longer > 0, longer, stream[at - 1])
        noisy[at] = self.without_space[stream[at]]
        return np.insert(noisy, at[longer == 0], self.space)


def epochs(code: Stream, chats: Stream, noise: BoundaryNoise, length: int, seed: int) -> Iterator[Stream]:
    """Windows of `length + 1` tokens without end: each epoch has all of the code once and a share of the chats."""
    random = np.random.default_rng(seed)
    while True:
        windows = _cut(noise.apply(code, random), length, random)
        talk = _cut(chats, length, random)
        random.shuffle(talk)
        count = int(len(windows) * CHAT_SHARE / (1 - CHAT_SHARE))
        mixed = np.concatenate([windows, talk[:count]])
        random.shuffle(mixed)
        yield from mixed


def _cut(stream: Stream, length: int, random: np.random.Generator) -> Stream:
    """[windows, length + 1], overlapping by one token, from a random first position."""
    first = int(random.integers(0, length))
    count = (len(stream) - first - 1) // length
    starts = first + length * np.arange(count)
    return np.asarray(stream[starts[:, None] + np.arange(length + 1)])


def for_rank(windows: Iterator[Stream], micro_batch: int, rank: int, processes: int) -> Iterator[Stream]:
    """Batches [micro_batch, length + 1] for one of several processes that read the same epochs in step."""
    while True:
        batch = [next(windows) for _ in range(micro_batch * processes)]
        yield np.stack(batch[rank::processes])
