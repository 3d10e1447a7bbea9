"""Measures the demo model through the whole path, on fresh local clusters, and prints docs/performance.md's table.

python benchmarks/demo.py [--requests 96] [--output-tokens 64]

One cluster after another; for each, closed loops, a shared prefix and an open loop by `headway bench`, and the share of
step time outside the model as the replicas count it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HEADWAY = Path(sys.executable).parent / "headway"
SHAPES = {
    "1 replica, TP=1": ["--replicas", "1", "--tp", "1"],
    "1 replica, TP=2": ["--replicas", "1", "--tp", "2"],
    "2 replicas, TP=1": ["--replicas", "2", "--tp", "1"],
}
HEADER = (
    "| cluster | load | output tok/s | TTFT p50 / p99 ms | TPOT p50 / p99 ms | cached | outside the model |\n"
    "|---|---|---|---|---|---|---|"
)


def headway(home: str, *arguments: str) -> Any:
    """`headway ARGUMENTS`, its JSON document when it prints one."""
    environment = {**os.environ, "HEADWAY_HOME": home}
    done = subprocess.run([str(HEADWAY), *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"headway {' '.join(arguments)}: {done.stderr}")
    return json.loads(done.stdout) if "--json" in arguments else None


def step_seconds(home: str) -> tuple[float, float]:
    """(all of it, in the model), summed over the replicas since their start."""
    time.sleep(1.5)  # loads are reported once a second
    totals = [replica["load"]["totals"] for replica in headway(home, "status", "--json")["replicas"]]
    return sum(one["step_seconds"] for one in totals), sum(one["model_seconds"] for one in totals)


def row(shape: str, load: str, run: dict[str, Any], outside: float) -> str:
    ttft, tpot = run["ttft_ms"], run["tpot_ms"]
    return (
        f"| {shape} | {load} | {run['output_tokens_per_s']:.0f} | {ttft['p50']:.1f} / {ttft['p99']:.1f} "
        f"| {tpot['p50']:.2f} / {tpot['p99']:.2f} | {run['cached_share']:.0%} | {outside:.0%} |"
    )


def measure(shape: str, arguments: list[str], options: argparse.Namespace) -> None:
    loads = {f"closed, {n} at once": ["--concurrency", str(n)] for n in (1, 8, 32)}
    loads["closed, 8 at once, 512 of 640 prompt tokens shared"] = [
        *("--concurrency", "8", "--shared-prefix", "512", "--input-tokens", "640")
    ]
    loads[f"open, {options.rate:g} a second"] = ["--rate", f"{options.rate:g}"]
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as home:
        headway(home, "up", "--detach", "--json", "--port", "0", *arguments)
        try:
            for load, chosen in loads.items():
                before = step_seconds(home)
                size = ["--requests", str(options.requests), "--output-tokens", str(options.output_tokens)]
                (run,) = headway(home, "bench", "--json", *size, *chosen)["runs"]
                after = step_seconds(home)
                if run["errors"]:
                    raise SystemExit(f"{shape}, {load}: {run['errors']}")
                outside = 1 - (after[1] - before[1]) / max(after[0] - before[0], 1e-9)
                print(row(shape, load, run, outside), flush=True)
        finally:
            headway(home, "down")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=96, help="requests in each run")
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--rate", type=float, default=8.0, help="arrivals a second of the open loop")
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), 128 prompt tokens unless told")
    print(HEADER, flush=True)
    for shape, arguments in SHAPES.items():
        measure(shape, arguments, options)


if __name__ == "__main__":
    main()
