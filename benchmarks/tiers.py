"""Time to the first token when shared prefixes exceed the device's pages: without tiers, with host memory, with a disk.

python benchmarks/tiers.py [--model DIR] [--prefixes 24] [--prefix-tokens 768] [--rounds 4] [--at-once 1 4]

One worker after another, each with pages for a quarter of the prefixes; the disk's has host pages for a quarter, too. A
first round computes every prefix; in the rounds that are measured each prefix comes once, in random order, before 32
tokens of its own. Requests go straight to the leader's EngineService.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import grpc
import numpy as np

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.core.servers import CHANNEL_OPTIONS
from headway.core.wire import sampling_to_proto
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub

PAGE_SIZE, OWN_TOKENS, NEW_TOKENS = 16, 32, 16
ROOT = root_key("benchmark")


class Session:
    """The only router of a worker."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = EngineServiceStub(channel).Session(None)
        self._first: dict[int, asyncio.Future[tuple[float, int]]] = {}
        self._last: dict[int, asyncio.Future[None]] = {}
        self._ids = 0
        self._writing = asyncio.Lock()
        self.totals = engine_pb2.LoadTotals()

    async def open(self) -> None:
        hello = engine_pb2.Hello(router_id="benchmark", takes_decoded=True)
        await self._call.write(engine_pb2.SessionRequest(hello=hello))
        self._pump = asyncio.create_task(self._read())

    async def generate(self, tokens: list[int]) -> tuple[float, int]:
        """(seconds to the first token, cached tokens), once the request has ended."""
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        async with self._writing:
            self._ids += 1
            number = self._ids
            self._first[number], self._last[number] = loop.create_future(), loop.create_future()
            sampling = sampling_to_proto(SamplingParams(temperature=0.0))
            submit = engine_pb2.Submit(
                id=number, token_ids=tokens, max_new_tokens=NEW_TOKENS, sampling=sampling, cache_root=ROOT
            )
            await self._call.write(engine_pb2.SessionRequest(submit=submit))
        at, cached = await self._first[number]
        await self._last[number]
        return at - start, cached

    async def close(self) -> None:
        self._call.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await self._pump

    async def _read(self) -> None:
        async for report in self._call:
            self.totals = report.load.totals
            for refusal in report.refusals:
                self._first[refusal.id].set_exception(RuntimeError(refusal.message))
            for output in report.outputs:  # the first and the last of each request are among them
                if not self._first[output.id].done():
                    self._first[output.id].set_result((time.perf_counter(), output.cached_tokens))
                if output.finish_reason:
                    self._last[output.id].set_result(None)


def measure(name: str, arguments: list[str], options: argparse.Namespace) -> None:
    """Prints the rows of one worker."""
    command = [sys.executable, "-m", "headway.worker", "--model", options.model, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
        assert worker.stdout is not None
        match = re.match(r"EngineService at (\S+),", worker.stdout.readline())
        if match is None:
            raise SystemExit(f"the worker did not start: {' '.join(command)}")
        asyncio.run(drive(name, match[1], options))
        worker.terminate()


async def drive(name: str, endpoint: str, options: argparse.Namespace) -> None:
    async with grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
        session = Session(channel)
        await session.open()
        await load(name, session, options)
        await session.close()


async def load(name: str, session: Session, options: argparse.Namespace) -> None:
    draw = random.Random(0)
    vocabulary = range(300, options.vocabulary)
    prefixes = [draw.choices(vocabulary, k=options.prefix_tokens) for _ in range(options.prefixes)]
    for prefix in prefixes:
        await session.generate([*prefix, *draw.choices(vocabulary, k=OWN_TOKENS)])
    for at_once in options.at_once:
        limit = asyncio.Semaphore(at_once)
        before = engine_pb2.LoadTotals()
        before.CopyFrom(session.totals)

        async def one(prefix: list[int], limit: asyncio.Semaphore = limit) -> tuple[float, int]:
            async with limit:
                return await session.generate([*prefix, *draw.choices(vocabulary, k=OWN_TOKENS)])

        order = [prefix for _ in range(options.rounds) for prefix in draw.sample(prefixes, len(prefixes))]
        start = time.perf_counter()
        done = await asyncio.gather(*(one(prefix) for prefix in order))
        seconds = time.perf_counter() - start
        times = np.array([ttft for ttft, _ in done]) * 1e3
        cached = sum(tokens for _, tokens in done) / (len(done) * (options.prefix_tokens + OWN_TOKENS))
        after = session.totals
        host = after.host_cached_tokens - before.host_cached_tokens
        disk = after.disk_cached_tokens - before.disk_cached_tokens
        print(
            f"| {name} | {at_once} | {np.percentile(times, 50):.1f} / {np.percentile(times, 99):.1f} "
            f"| {cached:.0%} | {host} | {disk} | {len(done) / seconds:.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocabulary", type=int, default=2000, help="token ids are drawn from 300 up to here")
    parser.add_argument("--prefixes", type=int, default=24)
    parser.add_argument("--prefix-tokens", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    whole = options.prefixes * (options.prefix_tokens // PAGE_SIZE)
    few = ["--device", options.device, "--page-size", str(PAGE_SIZE), "--pages", str(whole // 4)]
    print(
        "| tiers | at once | TTFT p50 / p99 ms | cached | tokens from host | tokens from disk | requests/s |\n"
        "|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as directory:
        measure("none", [*few, "--host-pages", "0"], options)
        measure("host memory", [*few, "--host-pages", str(2 * whole)], options)
        disk = ["--host-pages", str(whole // 4), "--kv-disk", directory, "--disk-pages", str(2 * whole)]
        measure("host memory and disk", [*few, *disk], options)


if __name__ == "__main__":
    main()
