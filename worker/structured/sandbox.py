"""The process that compiles grammars first. It may be killed at any time, and limits itself should its leader be gone.

`python -m headway.worker.structured.sandbox`: reads Setup, then Jobs from stdin, each a frame of a little-endian u32
length and msgpack; answers each Job with a Verdict on stdout.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import sys
import time
from typing import BinaryIO

import llguidance
import msgspec
import numpy as np
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from ...core.constraints import Grammar
from .limits import COMPILE_S, MASK_CPU_S, SANDBOX_BYTES, TRIAL_TOKENS, parser_limits
from .source import fault_of, to_source

LENGTH = struct.Struct("<I")
QUOTED = 240


class Setup(msgspec.Struct, frozen=True, array_like=True):
    """The tokenizer.json of the model, and what its tokens are."""

    tokenizer: str
    vocab_size: int
    eos_token_ids: tuple[int, ...]


class Job(msgspec.Struct, frozen=True, array_like=True):
    """A grammar to try."""

    grammar: Grammar


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """The grammar for a matcher, or why there is none."""

    source: str
    error: str


def make_tokenizer(setup: Setup) -> llguidance.LLTokenizer:
    """The trie of the vocabulary. Raises ValueError for a tokenizer whose tokens are not known bytes."""
    return llguidance.LLTokenizer(
        setup.tokenizer, n_vocab=setup.vocab_size, eos_token=list(setup.eos_token_ids) or None
    )


def try_grammar(tokenizer: llguidance.LLTokenizer, grammar: Grammar) -> Verdict:
    """Compiles and follows the grammar for a while."""
    try:
        source = to_source(grammar)
    except ValueError as error:
        return Verdict("", _short(str(error)))
    matcher = llguidance.LLMatcher(tokenizer, source, log_level=0, limits=parser_limits())
    fault = fault_of(matcher) or _follow(matcher, tokenizer)
    return Verdict("" if fault else source, _short(fault))


def _short(fault: str) -> str:
    """The fault in one line: where a long text is quoted in it, the reason comes first or last."""
    line = " ".join(fault.split())
    return line if len(line) <= 2 * QUOTED else f"{line[:QUOTED]} ... {line[-QUOTED:]}"


def _follow(matcher: llguidance.LLMatcher, tokenizer: llguidance.LLTokenizer) -> str:
    """Goes along the grammar at random; why it must not be used, if so. A later error is the request's own."""
    draw = random.Random(0)
    mask = allocate_token_bitmask(1, tokenizer.vocab_size)
    for place in range(TRIAL_TOKENS):
        started = time.process_time()
        fill_next_token_bitmask(matcher, mask)
        spent = time.process_time() - started
        if spent > MASK_CPU_S:
            return (
                f"too costly to follow: one token took {spent * 1e3:.0f} ms, and {MASK_CPU_S * 1e3:.0f} ms are allowed"
            )
        if matcher.is_error():
            return fault_of(matcher) if place == 0 else ""
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        bits[tokenizer.eos_tokens] = 0
        choices = np.flatnonzero(bits)
        if not len(choices) or not matcher.consume_token(int(draw.choice(choices))):
            break
    return ""


def read_frame(stream: BinaryIO) -> bytes | None:
    """One frame; None at the end, also when that comes in the middle of one."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def frame(message: msgspec.Struct) -> bytes:
    """The message as a frame."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def _limit_job() -> None:
    """Ends this process a while after its leader would have, should nobody be there to do it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + 2 * COMPILE_S) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    """Works until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (SANDBOX_BYTES, SANDBOX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(requests)
    if first is None:
        return
    tokenizer = make_tokenizer(msgspec.msgpack.decode(first, type=Setup))
    answers.write(frame(Verdict("", "")))
    answers.flush()
    while (body := read_frame(requests)) is not None:
        _limit_job()
        answers.write(frame(try_grammar(tokenizer, msgspec.msgpack.decode(body, type=Job).grammar)))
        answers.flush()


if __name__ == "__main__":
    main()
