"""The work folder: tokenizer and token streams, made once and read by every process."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from .chats import conversations
from .corpus import read_sources, split
from .model import MAIN
from .tokenizer import train_tokenizer
from .windows import Stream, encode

CHAT_VARIANTS = 4  # the same functions asked for in several ways


def prepare(work: Path, seed: int) -> None:
    """Read the library, train the tokenizer and write `tokenizer.json`, three streams and `facts.json`."""
    work.mkdir(parents=True, exist_ok=True)
    train, held_out = split(read_sources())
    tokenizer = train_tokenizer((source.text for source in train), MAIN.vocab_size)
    tokenizer.save(str(work / "tokenizer.json"))
    chats = [chat for variant in range(CHAT_VARIANTS) for chat in conversations(train, seed + variant)]
    streams = {
        "code": encode(tokenizer, (source.text for source in train)),
        "chats": encode(tokenizer, chats),
        "held_out": encode(tokenizer, (source.text for source in held_out)),
    }
    for name, stream in streams.items():
        np.save(work / f"{name}.npy", stream)
    facts = {
        "python": platform.python_version(),
        "train_files": len(train),
        "train_bytes": sum(len(source.text.encode()) for source in train),
        "train_tokens": len(streams["code"]),
        "chats": len(chats) // CHAT_VARIANTS,
        "held_out_files": [source.path for source in held_out],
        "held_out_bytes": sum(len(source.text.encode()) for source in held_out),
    }
    (work / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def load_stream(work: Path, name: str) -> Stream:
    """One of the streams `code`, `chats`, `held_out`."""
    return np.load(work / f"{name}.npy", mmap_mode="r")  # type: ignore[no-any-return]


def load_tokenizer(work: Path) -> Tokenizer:
    """The tokenizer of this work folder."""
    return Tokenizer.from_file(str(work / "tokenizer.json"))
