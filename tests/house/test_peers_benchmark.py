"""What measures Headway and its peers: counts whole answers, says when one is short, and compares like with like."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headway.benchmarks.peers.load import Figures, Load, Prefixes, Time, run
from headway.benchmarks.peers.prompts import Prompts
from headway.benchmarks.peers.results import Result, tables, write_json
from headway.benchmarks.peers.servers import Running
from headway.benchmarks.peers.sse import ask, request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
Answer = Callable[[dict[str, Any]], list[bytes]]


def events(count: int, told: int | None = None, mark: bytes = b'"choices":[{') -> list[bytes]:
    """An answer of `count` tokens, in pieces; `told` is what its usage says."""
    usage = b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\n' % (count if told is None else told)
    return [HEAD, *[b"data: {" + mark + b'"text":"a"}]}\n\n' for _ in range(count)], usage + b"data: [DONE]\n\n"]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[int]:
    """Answers each request with the pieces of `answer` of its body; an empty one is waited for in vain."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = json.loads(await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0])))
        for piece in answer(body):
            if not piece:
                await reader.read()
            writer.write(piece)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def test_an_answer_is_counted_by_its_usage() -> None:
    for mark in (b'"choices":[{', b'"choices": [{'):
        async with server(lambda body, mark=mark: events(4, 6, mark)) as port:
            found = await ask(port, request({"max_tokens": 6}), 6)
        assert (found.output_tokens, found.events, found.whole) == (6, 4, True)
        assert found.begun < found.first <= found.last


async def test_short_and_refused_answers_are_errors() -> None:
    async with server(lambda body: events(4)) as port:
        with pytest.raises(RuntimeError, match="4 tokens came, and 6"):
            await ask(port, request({}), 6)
    async with server(lambda body: [b"HTTP/1.1 400 Bad Request\r\n\r\nno"]) as port:
        with pytest.raises(RuntimeError, match="400 Bad Request"):
            await ask(port, request({}), 6)


async def test_an_answer_that_takes_too_long_is_cut() -> None:
    async with server(lambda body: [*events(3)[:-1], b""]) as port:
        found = await ask(port, request({}), 6, patience_s=0.3)
    assert (found.output_tokens, found.whole) == (3, False)


async def test_a_run_serves_every_caller_and_no_prompt_twice() -> None:
    prompts: list[list[int]] = []

    def answer(body: dict[str, Any]) -> list[bytes]:
        prompts.append(body["prompt"])
        assert body["stream"] is True
        return events(body["max_tokens"])

    async with server(answer) as port:
        on = Running(port, "float32", {"stream": True})
        found = await run(on, Load("x", 3, 24, 2, shared=16), Time(0.2, 60.0), seed=1)
    assert found.requests == len(prompts) >= 3
    assert found.cut == 0
    assert found.output_tokens_per_s > 0
    assert {tuple(prompt[:16]) for prompt in prompts} == {tuple(prompts[0][:16])}
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts)
    assert {len(prompt) for prompt in prompts} == {24}


def test_prompts_are_the_same_tokens_as_text() -> None:
    prompts = Prompts(3)
    common = prompts.draw(64)
    ids = prompts.draw(96, common)
    assert ids[:64] == common
    assert prompts._encode(prompts.text(ids)) == ids


def test_ratios_are_of_the_same_load(tmp_path: Path) -> None:
    ours = Figures(300.0, (10.0, 11.0), (1.0, 2.0), 4, 0)
    theirs = Figures(100.0, (20.0, 21.0), (4.0, 5.0), 4, 1)
    results = [
        Result("demo", "16 streams", "headway", "float32", ours),
        Result("demo", "16 streams", "vllm", "bfloat16", theirs),
        Result("demo", "32 streams", "vllm", "bfloat16", theirs),
        Result("demo", "a prefix", "headway", "float32", Prefixes(100.0, 10.0, 8)),
        Result("79m", "all loads", "vllm", "float32", None, "failed"),
    ]
    text = tables(results)
    assert "| demo | 16 streams | headway, float32 | vllm, bfloat16 | 3.00 | 2.00 | 4.00 |" in text
    assert text.count("headway, float32 | vllm") == 1
    assert "| demo | 16 streams | vllm, bfloat16 | 100 (1 of 4 requests cut short) | 20.0 / 21.0 | 4.0 / 5.0 |" in text
    assert "| demo | headway, float32 | 100.0 | 10.0 | 10.0x |" in text
    write_json(tmp_path / "found.json", {"about": "a test"}, results)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"][0]["found"]["output_tokens_per_s"] == 300.0
    assert found["runs"][4]["found"] is None
