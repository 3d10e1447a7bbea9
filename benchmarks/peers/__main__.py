"""Headway beside its peers, and tables for docs/performance.md.

python -m benchmarks.peers [--models demo 79m qwen3-0.6b] [--servers headway vllm llama.cpp transformers]
    [--types float32 own]

Every server gets the same checkpoint, the same number of threads and the same requests, one server after the other, by
HTTP. Peers are installed into environments of their own under --folder, once. Each runs in float32, and with the type
of its own: that which it takes when it is told nothing. --minutes bounds all of it: runs that would come too late are
named.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from . import results
from .checkpoints import checkpoint
from .load import OWN, PREFIX, Figures, Load, Prefixes, Time, prefixes, run
from .results import Result
from .servers import FLOAT32, PREPARE, SERVERS, Launch, Running, headway

WARM_UP = 8
SHARED = (448, 384)
PREFIXES = f"a prefix of {PREFIX} tokens"
# A model whose single request takes longer than a small one's whole run gets more time.
PATIENCE = {"qwen3-0.6b": 3.0}

Run = Callable[[], Coroutine[Any, Any, Figures | Prefixes]]


class Turn(NamedTuple):
    """One start of one server, and what it is measured at."""

    model: str
    server: str
    dtype: str
    loads: list[Load]
    prefix: bool

    def launch(self, options: argparse.Namespace) -> Launch:
        tokens = max(load.prompt_tokens + load.output_tokens for load in self.loads) if self.loads else 0
        return Launch(
            checkpoint(self.model, options.folder),
            options.folder,
            options.threads,
            self.dtype,
            max([load.streams for load in self.loads], default=2),
            max(tokens, PREFIX + 2 * OWN if self.prefix else 0),
            tuple(options.headway_arguments.split()) if SERVERS[self.server] is headway else (),
        )


def loads(options: argparse.Namespace) -> list[Load]:
    """The closed loops of one server, those that matter most first."""
    size = (options.prompt_tokens, options.output_tokens)
    streams = sorted(options.concurrency, key=lambda n: (n not in (16, 32), n))
    shared = Load(f"8 streams, {SHARED[1]} of {SHARED[0]} prompt tokens shared", 8, SHARED[0], size[1], SHARED[1])
    return [*(Load(f"{n} stream{'s' * (n > 1)}", n, *size) for n in streams), shared]


def turns(options: argparse.Namespace) -> Iterator[Turn]:
    for model in options.models:
        for dtype in (FLOAT32 if name == FLOAT32 else "" for name in options.types):
            for server in options.servers:
                every = loads(options)
                # llama.cpp divides its context between its slots: long prompts want another start, with few of them.
                if server == "llama.cpp":
                    yield Turn(model, server, dtype, every, prefix=False)
                    yield Turn(model, server, dtype, [], prefix=True)
                else:
                    yield Turn(model, server, dtype, every, prefix=True)


def measure(turn: Turn, options: argparse.Namespace, until: float) -> Iterator[Result]:
    """Starts the server and runs its loads. A server that does not serve is a result, too."""
    what = (turn.model, "all loads", turn.server, turn.dtype or "its own type")
    if time.monotonic() > until:
        yield Result(*what, None, "left out: no time was left")
        return
    longer = PATIENCE.get(turn.model, 1.0)
    limit = Time(options.seconds, options.patience * longer)
    try:
        with SERVERS[turn.server](turn.launch(options)) as on:
            if not turn.dtype and on.dtype == FLOAT32 in options.types:  # which is measured anyway
                return
            uvloop.run(run(on, Load("warm-up", WARM_UP, options.prompt_tokens, 8), limit, seed=0))
            for name, begin in runs(turn, on, limit):
                late = time.monotonic() > until
                found, why = (None, "left out: no time was left") if late else (uvloop.run(begin()), "")
                yield Result(turn.model, name, turn.server, on.dtype, found, why)
    except Exception:
        traceback.print_exc()
        yield Result(*what, None, "failed")


def runs(turn: Turn, on: Running, limit: Time) -> Iterator[tuple[str, Run]]:
    """Names of the runs of a server, and what begins each."""
    for number, load in enumerate(turn.loads, 1):
        yield load.name, partial(run, on, load, limit, number)
    if turn.prefix:
        yield PREFIXES, partial(prefixes, on, limit, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "79m", "qwen3-0.6b"])
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 16, 32, 64])
    parser.add_argument("--types", nargs="+", default=[FLOAT32, "own"], choices=[FLOAT32, "own"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run; requests that run then are waited for")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds after which a run is cut short")
    parser.add_argument("--minutes", type=float, default=25.0, help="of it all, installing aside")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--headway-arguments", default="", help='of `headway up`, such as "--tp 4"')
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "headway-peers")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers end with us
    options.folder.mkdir(parents=True, exist_ok=True)
    every = list(turns(options))
    for turn in every:
        if prepare := PREPARE.get(turn.server):
            prepare(checkpoint(turn.model, options.folder), options.folder, turn.dtype)
    until = time.monotonic() + 60 * options.minutes
    size = f"{options.prompt_tokens} prompt tokens and {options.output_tokens} output tokens a request"
    title = f"{time.strftime('%Y-%m-%d')}, {options.threads} threads on {platform.machine()}; {size}"
    print(title, flush=True)
    found: list[Result] = []
    for turn in every:
        for result in measure(turn, options, until):
            found.append(result)
            print(result.row(), flush=True)
            if options.json:
                results.write_json(options.json, {"about": title, "threads": options.threads}, found)
    print(f"\n{title}\n\n{results.tables(found)}")


if __name__ == "__main__":
    main()
