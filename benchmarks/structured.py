"""What grammars cost: each step with 1, 16 and 64 structured rows, and what hostile ones cost their neighbours.

python benchmarks/structured.py [--steps 200] [--seconds 10]

The first table times what a step waits for after its tokens are sampled: taking them, and the masks of the next ones.
The rows follow grammars of their own, at random. The second runs a worker with eight plain streams, alone and while
hostile grammars, each new, are submitted without pause.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import sysconfig
import time
from array import array
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from headway.core.blocks import root_key
from headway.core.constraints import Grammar
from headway.core.sampling import SamplingParams
from headway.core.wire import grammar_to_proto, sampling_to_proto
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub
from headway.worker.scheduler import Request
from headway.worker.structured.compiler import GrammarCompiler
from headway.worker.structured.crew import Crew
from headway.worker.structured.guide import Guide

DEMO = Path(__file__).parents[1] / "demo" / "headway-demo"
ROOT = root_key("benchmark")
STREAMS = 8
TOKENS = 400


def schema(number: int) -> Grammar:
    """Like those that tools declare."""
    item = {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}}}
    properties = {
        f"name{number}": {"type": "string"},
        "when": {"type": "string", "format": "date-time"},
        "items": {"type": "array", "items": item},
        "kind": {"enum": ["new", "used", "broken"]},
        "price": {"type": "number", "minimum": 0},
    }
    return Grammar("json_schema", json.dumps({"type": "object", "properties": properties, "required": ["items"]}))


def large_vocabulary(path: Path) -> Path:
    """A byte-level tokenizer of 128,000 tokens, trained on Python's standard library."""
    path.mkdir(exist_ok=True)
    if not (path / "tokenizer.json").exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=128_000,
            min_frequency=1,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*/*.py"))
        tokenizer.train_from_iterator((file.read_text("utf-8", "ignore") for file in files), trainer)
        tokenizer.save(str(path / "tokenizer.json"))
    return path


def request() -> Request:
    return Request(
        session=0,
        id=0,
        tokens=array("I", [1]),
        prompt_tokens=1,
        max_new_tokens=1,
        sampling=SamplingParams(),
        root=ROOT,
        page_size=16,
        eos_token_ids=[0],
    )


async def mask_times(model: Path, vocab_size: int, rows: int, steps: int) -> list[float]:
    """Seconds that each of so many steps waits for its masks."""
    crew = Crew()
    compiler = GrammarCompiler(model, vocab_size, [0], crew)
    draw = random.Random(0)
    guides: list[Guide] = []
    times: list[float] = []
    while len(times) < steps:
        while len(guides) < rows:
            guides.append(await compiler.guide(schema(len(guides)), request()))
        for guide in guides:
            bits = np.unpackbits(np.frombuffer(guide.mask, np.uint8), bitorder="little")
            bits[0] = 0
            allowed = np.flatnonzero(bits)
            guide.push(int(draw.choice(allowed)) if len(allowed) else 0)
        start = time.perf_counter()
        crew.advance(guides)
        crew.wait(guides, 10)
        times.append(time.perf_counter() - start)
        guides = [guide for guide in guides if not (guide.error or guide.over)]
    await compiler.close()
    return times


def hostile(number: int) -> Grammar:
    """Of these the first keeps a compiler busy until it is killed; the others end by themselves, or are too costly."""
    patterns = [{"type": "string", "pattern": f".*a.{{{at + number % 7}}}b.*"} for at in range(1, 30)]
    forms = [
        Grammar("json_schema", json.dumps({"allOf": patterns, "title": str(number)})),
        Grammar("regex", f"a{{{1_000_000 + number}}}"),
        Grammar("regex", "(.*)" * (1500 + number % 100)),
        Grammar("json_schema", "[" * (3000 + number)),
        Grammar("ebnf", f'start: e\ne: e e | e e e | "a{number}" | /b*/ |'),
        Grammar("regex", f"x{{{number + 1}}}((a{{1000}}){{1000}}){{1000}}"),
    ]
    return forms[number % len(forms)]


class Neighbours:
    """Streams without a grammar, and the times between their tokens."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.ids = itertools.count(1)
        self.plain: dict[int, float] = {}
        self.gaps: list[float] = []
        self.ends: dict[str, int] = {}
        self.open = 0

    async def submit(self, grammar: Grammar | None = None) -> None:
        id = next(self.ids)
        message = engine_pb2.Submit(
            id=id,
            token_ids=[(id * 7919 + 17 * at) % 3000 + 300 for at in range(16)],
            max_new_tokens=60 if grammar else TOKENS,
            sampling=sampling_to_proto(SamplingParams(temperature=0.0)),
            cache_root=ROOT,
        )
        if grammar is None:
            self.plain[id] = 0.0
        else:
            message.grammar.CopyFrom(grammar_to_proto(grammar))
            self.open += 1
        await self.session.write(engine_pb2.SessionRequest(submit=message))

    def _came(self, id: int, now: float) -> None:
        """Notes a token, if it is a plain stream's."""
        if id in self.plain:
            if self.plain[id]:
                self.gaps.append((now - self.plain[id]) * 1e3)
            self.plain[id] = now

    async def read(self, seconds: float, *, under_fire: bool) -> list[float]:
        """Milliseconds between tokens of the plain streams, for so long."""
        self.gaps, until, number = [], time.monotonic() + seconds, itertools.count(int(time.time() * 10) % 10_000)
        while time.monotonic() < until:
            while under_fire and self.open < 16:
                await self.submit(hostile(next(number)))
            report: engine_pb2.SessionResponse = await self.session.read()
            now = time.perf_counter()
            self.open -= len(report.refusals)
            self.ends["refused"] = self.ends.get("refused", 0) + len(report.refusals)
            for id in report.decoded_ids:
                self._came(id, now)
            for output in report.outputs:
                self._came(output.id, now)
                if output.finish_reason and self.plain.pop(output.id, None) is None:
                    self.open -= 1
                    self.ends["ran"] = self.ends.get("ran", 0) + 1
            while len(self.plain) < STREAMS:
                await self.submit()
        return self.gaps


def with_worker(seconds: float) -> None:
    """The second table."""
    command = [sys.executable, "-m", "headway.worker", "--max-sequences", "32", "--pages", "1200"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        asyncio.run(under_fire(worker.stdout.readline().split()[2].rstrip(","), seconds))
    finally:
        worker.terminate()
        worker.wait()


async def under_fire(endpoint: str, seconds: float) -> None:
    """Neighbours alone, beside hostile grammars, and alone again."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        session = EngineServiceStub(channel).Session(None)
        hello = engine_pb2.Hello(router_id="benchmark", takes_decoded=True)
        await session.write(engine_pb2.SessionRequest(hello=hello))
        neighbours = Neighbours(session)
        for _ in range(STREAMS):
            await neighbours.submit()
        await neighbours.read(2.0, under_fire=False)
        print(f"\n| {STREAMS} plain streams | gap p50 ms | p99 | largest |\n|---|---|---|---|")
        for name, fire in (("alone", False), ("beside hostile grammars", True), ("alone again", False)):
            gaps = await neighbours.read(seconds, under_fire=fire)
            p50, p99 = np.percentile(gaps, [50, 99])
            print(f"| {name} | {p50:.1f} | {p99:.1f} | {max(gaps):.1f} |", flush=True)
        print(f"hostile requests: {neighbours.ends}")
        session.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tokenizers", type=Path, default=Path("/tmp/headway-vocabulary"), help="where one is kept")
    options = parser.parse_args()
    print("| vocabulary | structured rows | masks ms p50 | p90 | largest |\n|---|---|---|---|---|")
    for model, size in ((DEMO, 4096), (large_vocabulary(options.tokenizers), 128_000)):
        for rows in (1, 16, 64):
            times = np.array(asyncio.run(mask_times(model, size, rows, options.steps))) * 1e3
            p50, p90 = np.percentile(times, [50, 90])
            print(f"| {size} | {rows} | {p50:.2f} | {p90:.2f} | {times.max():.2f} |", flush=True)
    with_worker(options.seconds)


if __name__ == "__main__":
    main()
