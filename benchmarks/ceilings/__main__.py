"""What no server can exceed on this machine: its cores' rates of multiplication and of reading, all cores at once, and
the output that they allow in the loads of `benchmarks.peers`.

python -m benchmarks.ceilings [--cores 2] [--seconds 1] [--rounds 5] [--models 79m qwen3-0.6b] [--streams 1 8 32 64]

For processors of x86 with AVX2 at least, by vectors: matrix units (AMX) go beyond. Needs a C compiler. Take it on a
quiet machine, right before what is to be compared: clocks and neighbours change. Attention, norms and sampling are left
out of a load's bound, as is all that is not the model; each step reads every weight once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ..peers.checkpoints import SHAPES

SOURCE = Path(__file__).with_name("rates.c")


class Rates(NamedTuple):
    """A second, of all cores together: operations in float32 and in bfloat16 (0 without such vectors), bytes read."""

    float32: float
    bfloat16: float
    reading: float


def measure(cores: int, seconds: float, rounds: int, mebibytes: int) -> Rates:
    """The best of `rounds`, in each of which every core does the same at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "rates"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, SOURCE], check=True)
        found = [_together(program, cores, seconds, mebibytes) for _ in range(rounds)]
    return Rates(*(max(each) for each in zip(*found, strict=True)))


def _together(program: Path, cores: int, seconds: float, mebibytes: int) -> Rates:
    running = [
        subprocess.Popen(
            ["taskset", "-c", str(core), program, str(seconds), str(mebibytes)], stdout=subprocess.PIPE, text=True
        )
        for core in sorted(os.sched_getaffinity(0))[:cores]
    ]
    said = [[float(word) for word in process.communicate()[0].split()] for process in running]
    return Rates(*(sum(each) for each in zip(*said, strict=True)))


class Bound(NamedTuple):
    """Output tokens a second, by the rate of multiplication, and by that of reading weights."""

    multiplying: float
    reading: float


def bound(shape: dict[str, Any], streams: int, prompt: int, output: int, rate: float, bytes_a_second: float) -> Bound:
    """Of a dense model whose weights have 2 bytes, in a closed loop of so many `streams`."""
    hidden, dim = shape["hidden_size"], shape["head_dim"]
    heads = 2 * shape["num_attention_heads"] + 2 * shape["num_key_value_heads"]
    layers = shape["num_hidden_layers"] * hidden * (heads * dim + 3 * shape["intermediate_size"])
    head = shape["vocab_size"] * hidden
    operations = 2 * layers * (prompt + output - 1) + 2 * head * output
    # All streams take their steps together, a prompt takes one of its own at the most.
    read = 2 * (layers + head) * (output - 1) / streams
    return Bound(output * rate / operations, output * bytes_a_second / read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mebibytes", type=int, default=256, help="that each core reads: more than its caches hold")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    options = parser.parse_args()
    rates = measure(options.cores, options.seconds, options.rounds, options.mebibytes)
    print(
        f"{options.cores} cores: {rates.float32 / 1e9:.0f} G operations/s in float32, {rates.bfloat16 / 1e9:.0f} in"
        f" bfloat16, {rates.reading / 1e9:.1f} GB/s read\n"
    )
    print("| model, bfloat16 | streams | at most, multiplying | at most, reading | output tok/s at most |")
    print("|---|---|---|---|---|")
    for model in options.models:
        for streams in options.streams:
            most = bound(
                SHAPES[model], streams, options.prompt_tokens, options.output_tokens,
                rates.bfloat16 or rates.float32, rates.reading,
            )  # fmt: skip
            print(f"| {model} | {streams} | {most.multiplying:.0f} | {most.reading:.0f} | {min(most):.0f} |")


if __name__ == "__main__":
    main()
