"""The same loads for every server: streamed `/v1/completions`, greedy, of a fixed number of tokens."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .prompts import Prompts
from .servers import Running
from .sse import Answer, ask, request

# Requests that are made before the clock starts; more are made on the way.
READY = 256
# For a server to notice that nobody waits any more.
SETTLE_S = 1.0
# In the load of warm prefixes: tokens of the prefix and of each prompt after it, requests that find it.
PREFIX, OWN, WARM = 1024, 32, 3
FEW_TOKENS = 4


class Load(NamedTuple):
    """`streams` callers in a closed loop; the first `shared` tokens of all prompts are the same."""

    name: str
    streams: int
    prompt_tokens: int
    output_tokens: int
    shared: int = 0


class Time(NamedTuple):
    """No request is sent after `seconds`, unless its caller had none yet; none is waited for after `patience`."""

    seconds: float
    patience: float


class Figures(NamedTuple):
    """Of one run, as the callers saw it. Times in milliseconds, p50 and p99, of whole answers; 0 without one. `cut` are
    the answers that patience did not wait for; their events count as tokens."""

    output_tokens_per_s: float
    ttft: tuple[float, float]
    tpot: tuple[float, float]
    requests: int
    cut: int


class Prefixes(NamedTuple):
    """Median milliseconds to the first token, alone on the server: of a prefix that is new to it, and of one it has."""

    cold: float
    warm: float
    requests: int


async def run(on: Running, load: Load, limit: Time, seed: int) -> Figures:
    """One run. Raises RuntimeError when an answer is short or no answer."""
    messages = _messages(on, load, seed)
    ready = iter([next(messages) for _ in range(READY)])
    answers: list[Answer] = []
    gc.collect()
    gc.disable()
    begun = time.perf_counter()

    async def caller() -> None:
        while True:
            message = next(ready, None) or next(messages)
            left = begun + limit.patience - time.perf_counter()
            answers.append(await ask(on.port, message, load.output_tokens, left))
            if time.perf_counter() > begun + limit.seconds:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(load.streams):
                group.create_task(caller())
    finally:
        gc.enable()
    found = _figures(answers, time.perf_counter() - begun)
    if found.cut:
        await asyncio.sleep(SETTLE_S)
    return found


def _messages(on: Running, load: Load, seed: int) -> Iterator[bytes]:
    prompts = Prompts(seed)
    common = prompts.draw(load.shared) if load.shared else []
    while True:
        yield _message(on, prompts, prompts.draw(load.prompt_tokens, common), load.output_tokens)


def _message(on: Running, prompts: Prompts, ids: list[int], output_tokens: int) -> bytes:
    prompt = prompts.text(ids) if on.as_text else ids
    return request({"prompt": prompt, "max_tokens": output_tokens, **on.fields})


def _figures(answers: list[Answer], seconds: float) -> Figures:
    whole = [answer for answer in answers if answer.whole]
    return Figures(
        sum(answer.output_tokens for answer in answers) / seconds,
        _percentiles([answer.first - answer.begun for answer in whole]),
        _percentiles([(answer.last - answer.first) / (answer.output_tokens - 1) for answer in whole]),
        len(answers),
        len(answers) - len(whole),
    )


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    if not seconds:
        return 0.0, 0.0
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
    return float(p50), float(p99)


async def prefixes(on: Running, limit: Time, seed: int) -> Prefixes:
    """Prefixes of PREFIX tokens, each one cold once and then warm WARM times, every time before other tokens."""
    prompts = Prompts(seed)
    cold: list[float] = []
    warm: list[float] = []
    begun = time.perf_counter()
    while len(cold) < 2 or time.perf_counter() < begun + limit.seconds:
        common = prompts.draw(PREFIX)
        for times in (cold, *[warm] * WARM):
            message = _message(on, prompts, prompts.draw(PREFIX + OWN, common), FEW_TOKENS)
            answer = await ask(on.port, message, FEW_TOKENS)
            times.append((answer.first - answer.begun) * 1e3)
        if time.perf_counter() > begun + limit.patience:
            break
    return Prefixes(float(np.median(cold)), float(np.median(warm)), len(cold) + len(warm))
