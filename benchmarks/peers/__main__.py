"""Headway beside its peers, and a table for docs/performance.md.

python -m benchmarks.peers [--models demo 79m qwen3-0.6b] [--servers headway vllm llama.cpp] [--concurrency 1 8 32]

Every server gets the same checkpoint, the same number of threads and the same requests, one server after the other, by
HTTP. Peers are installed into environments of their own under --folder, once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from pathlib import Path

from .checkpoints import checkpoint, vocab_size
from .load import Figures, Load, run
from .servers import SERVERS, headway

HEADER = "| model | load | server | output tok/s | TTFT p50 / p99 ms | TPOT p50 / p99 ms |\n|---|---|---|---|---|---|"
WARM_UP = 8


def loads(options: argparse.Namespace) -> dict[str, Load]:
    """The runs of one server, by their names."""
    size = (options.prompt_tokens, options.output_tokens)
    found = {f"{n} streams": Load(n, max(options.requests, 2 * n), *size) for n in options.concurrency}
    found["8 streams, 384 of 448 prompt tokens shared"] = Load(8, options.requests, 448, options.output_tokens, 384)
    return found


def measure(model: str, server: str, options: argparse.Namespace) -> None:
    path = checkpoint(model, options.folder)
    arguments = {"arguments": tuple(options.headway_arguments.split())} if SERVERS[server] is headway else {}
    vocab = vocab_size(model)
    with SERVERS[server](path, options.folder, options.threads, **arguments) as running:
        warm = Load(WARM_UP, 2 * WARM_UP, options.prompt_tokens, 16)
        asyncio.run(run(running.port, warm, running.extra, vocab, seed=0))
        for number, (name, load) in enumerate(loads(options).items(), 1):
            found = asyncio.run(run(running.port, load, running.extra, vocab, seed=number))
            print(row(model, name, server, found), flush=True)


def row(model: str, load: str, server: str, found: Figures) -> str:
    times = " | ".join(f"{p50:.1f} / {p99:.1f}" for p50, p99 in (found.ttft, found.tpot))
    return f"| {model} | {load} | {server} | {found.output_tokens_per_s:.0f} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "79m", "qwen3-0.6b"])
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 16, 32, 64])
    parser.add_argument("--requests", type=int, default=64, help="requests in each run, twice the streams at least")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--headway-arguments", default="", help='of `headway up`, such as "--tp 4"')
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "headway-peers")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    size = f"{options.prompt_tokens} prompt tokens and {options.output_tokens} output tokens a request"
    print(f"{time.strftime('%Y-%m-%d')}, {options.threads} threads on {platform.machine()}; {size}")
    print(HEADER, flush=True)
    for model in options.models:
        for server in options.servers:
            measure(model, server, options)


if __name__ == "__main__":
    main()
