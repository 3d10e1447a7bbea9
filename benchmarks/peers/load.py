"""The same closed loop for every server: streamed `/v1/completions` with prompts of token ids.

Written on bare sockets: a general HTTP client would take more of the machine than some of the servers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Load(NamedTuple):
    """`concurrency` callers with `requests` between them; the first `shared` tokens of all prompts are the same."""

    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    shared: int = 0


class Figures(NamedTuple):
    """Of one run, as the callers saw it. Times in milliseconds, p50 and p99."""

    output_tokens_per_s: float
    ttft: tuple[float, float]
    tpot: tuple[float, float]


async def run(port: int, load: Load, extra: Mapping[str, Any], vocab_size: int, seed: int) -> Figures:
    """One run against the server on `port`. Raises RuntimeError when an answer is short or no answer."""
    draw = np.random.default_rng(seed)
    common = draw.integers(10, vocab_size, load.shared).tolist()
    rest = load.prompt_tokens - load.shared
    prompts = [common + draw.integers(10, vocab_size, rest).tolist() for _ in range(load.requests)]
    ttft: list[float] = []
    tpot: list[float] = []
    waiting = iter(prompts)

    async def caller() -> None:
        for prompt in waiting:
            first, rate = await _ask(port, {"prompt": prompt, "max_tokens": load.output_tokens, **extra})
            ttft.append(first * 1e3)
            tpot.append(rate * 1e3)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(load.concurrency):
            group.create_task(caller())
    seconds = time.perf_counter() - begun
    return Figures(load.requests * load.output_tokens / seconds, _percentiles(ttft), _percentiles(tpot))


def _percentiles(values: list[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(values, (50, 99))
    return float(p50), float(p99)


async def _ask(port: int, body: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds to the first token, and for each token after it."""
    wanted = body["max_tokens"]
    body = {
        "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}, **body,
    }  # fmt: skip
    data = json.dumps(body).encode()
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"  # noqa: E501
        writer.write(head.encode() + data)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status.decode().strip()}: {(await reader.read(2000)).decode(errors='replace')}")
        first = last = 0.0
        made = 0
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            message = json.loads(line[6:])
            if message.get("usage"):
                made = message["usage"]["completion_tokens"]
            if message.get("choices"):
                last = time.perf_counter()
                first = first or last
        if made != wanted:
            raise RuntimeError(f"{made} tokens came, and {wanted} were asked for")
        return first - begun, (last - first) / (wanted - 1)
    finally:
        writer.close()
