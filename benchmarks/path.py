"""What carries tokens, without what makes them: processor time a token of router, leader and client.

python -m benchmarks.path [--streams 16 32] [--fronts http grpc] [--step-ms 1] [--output-tokens 64 512] [--json FILE]

One leader whose engine says a token a stream at every step (benchmarks/paced_engine.py), one router, and callers
in this process: server-sent events read from bare sockets, or the client library. A path that does not keep up merges
tokens, so that the rate still comes: tokens an event tell, 1.0 is each token by itself. Processor times hold on a busy
machine better than rates do. The leader's are in two: its service's a token, its engine's thread a step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import uvloop

from benchmarks.peers.servers import STREAMED
from benchmarks.peers.sse import ask, request
from headway.client import AsyncHeadway

ENGINE = Path(__file__).with_name("paced_engine.py")
COLUMNS = {
    "front": "",
    "streams": "",
    "output_tokens": "",
    "output_tokens_per_s": ".0f",
    "tokens_an_event": ".2f",
    "first_token_ms": ".1f",
    "router_cores": ".2f",
    "router_us_a_token": ".1f",
    "service_us_a_token": ".1f",
    "engine_us_a_step": ".0f",
    "client_us_a_token": ".1f",
}


class Cluster(NamedTuple):
    """A leader and a router that runs on it."""

    leader: psutil.Process
    router: psutil.Process
    engine_thread: int
    http: int
    grpc: str


class Spent(NamedTuple):
    """Processor seconds so far."""

    router: float
    service: float
    engine: float
    client: float


class Load(NamedTuple):
    """Closed: `streams` callers at a time."""

    front: str
    streams: int
    prompt_tokens: int
    output_tokens: int
    seconds: float


async def _started(pattern: str, *command: str) -> tuple[subprocess.Popen[bytes], re.Match[str]]:
    """A process of ours and the line that says it serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    said = ""
    while not (match := re.search(pattern, said)):
        line = await process.stdout.readline()
        if not line:
            raise SystemExit(said)
        said += line.decode()
    return process, match  # type: ignore[return-value]


@asynccontextmanager
async def cluster(step_ms: float) -> AsyncIterator[Cluster]:
    """From both processes' start to their end."""
    leader, at = await _started(r"EngineService at (\S+), engine thread (\d+)", str(ENGINE), "--step-ms", str(step_ms))
    router = None
    try:
        router, fronts = await _started(
            r"serves: grpc (\S+), http \S+:(\d+)", "-m", "headway.router", "--replica", at[1], "--grpc-port", "0",
            "--http-port", "0",
        )  # fmt: skip
        found = Cluster(psutil.Process(leader.pid), psutil.Process(router.pid), int(at[2]), int(fronts[2]), fronts[1])
        await _ready(found)
        yield found
    finally:
        for process in (router, leader):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                await process.wait()  # type: ignore[misc]


async def _ready(on: Cluster) -> None:
    async with AsyncHeadway(on.grpc) as headway:
        while True:
            if any(model.ready_replicas for model in await headway.models()):
                return
            await asyncio.sleep(0.05)


def spent(on: Cluster) -> Spent:
    threads = {thread.id: thread.user_time + thread.system_time for thread in on.leader.threads()}
    engine = threads[on.engine_thread]
    return Spent(_cpu(on.router), _cpu(on.leader) - engine, engine, _cpu(psutil.Process(os.getpid())))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def run(on: Cluster, load: Load) -> dict[str, Any]:
    """One run, in figures."""
    prompts = [[300 + (index * 31 + at * 7) % 3000 for at in range(load.prompt_tokens)] for index in range(64)]
    events = tokens = 0
    firsts: list[float] = []
    end = time.perf_counter() + load.seconds

    async def over_http(number: int) -> int:
        body = {"prompt": prompts[number % 64], "max_tokens": load.output_tokens, **STREAMED}
        answer = await ask(on.http, request(body), load.output_tokens)
        firsts.append(answer.first - answer.begun)
        return answer.events - 1  # the one with the finish reason has no token

    async def over_grpc(number: int) -> int:
        stream = headway.generate_stream(
            prompts[number % 64], max_new_tokens=load.output_tokens, ignore_eos=True, temperature=0.0
        )
        begun = time.perf_counter()
        async with stream:
            times = [time.perf_counter() async for _ in stream]
        firsts.append(times[0] - begun)
        return len(times)

    async def caller(number: int) -> None:
        nonlocal events, tokens
        while time.perf_counter() < end:
            came = await (over_http if load.front == "http" else over_grpc)(number)
            events += came
            tokens += load.output_tokens
            number += load.streams

    async with AsyncHeadway(on.grpc) as headway:
        before, begun = spent(on), time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(load.streams)))
        after, seconds = spent(on), time.perf_counter() - begun
    used = Spent(*(late - early for late, early in zip(after, before, strict=True)))
    return {
        **load._asdict(),
        "output_tokens_per_s": tokens / seconds,
        "tokens_an_event": tokens / events,
        "first_token_ms": statistics.median(firsts) * 1e3,
        "router_cores": used.router / seconds,
        "router_us_a_token": used.router / tokens * 1e6,
        "service_us_a_token": used.service / tokens * 1e6,
        "engine_us_a_step": used.engine / (tokens / load.streams) * 1e6,
        "client_us_a_token": used.client / tokens * 1e6,
    }


def row(found: dict[str, Any]) -> str:
    return f"| {' | '.join(format(found[name], form) for name, form in COLUMNS.items())} |"


async def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    async with cluster(options.step_ms) as on:
        print(f"pids: router {on.router.pid}, leader {on.leader.pid}", file=sys.stderr)
        print(f"| {' | '.join(COLUMNS).replace('_', ' ')} |\n|{'---|' * len(COLUMNS)}", flush=True)
        for front in options.fronts:
            for tokens in options.output_tokens:
                for streams in options.streams:
                    await run(on, Load(front, streams, options.prompt_tokens, tokens, 0.5))
                    found.append(await run(on, Load(front, streams, options.prompt_tokens, tokens, options.seconds)))
                    print(row(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--fronts", nargs="+", default=["http", "grpc"], choices=["http", "grpc"])
    parser.add_argument("--step-ms", type=float, default=1.0, help="time from one token of a stream to its next")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    found = uvloop.run(measure(options))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
