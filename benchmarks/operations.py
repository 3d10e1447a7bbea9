"""Products and attention in C on one core: microseconds of the fastest of many calls, for each type.

python benchmarks/operations.py [--set avx512_bf16] [--inputs 768] [--outputs 2304] [--rows 1 2 3 16 64 512]
    [--heads 4] [--kv-heads 2] [--head-dim 64]
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from headway.kernels.kv_pages import KvPages
from headway.kernels.linear_packed import PackedWeight
from headway.kernels.native import native
from headway.kernels.paged_attention import paged_attention, plan_attention

PAGE_SIZE = 16
CALLS = 200
# Rows, queries of each, context of each.
BATCHES = ((1, 1, 300), (16, 1, 300), (64, 1, 300), (1, 512, 512))
# The same of decodes whose keys and values come from memory, one layer's after the other's, as in a step.
FAR = ((32, 1, 96), (64, 1, 256), (8, 1, 1000))
FAR_BYTES = 96 << 20  # of all layers' caches: more than the processor's


def fastest(call: Callable[[], object]) -> float:
    """Microseconds."""
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1e6


def products(options: argparse.Namespace, dtype: torch.dtype, *, int8: bool = False) -> list[float]:
    weight = PackedWeight(torch.randn(options.outputs, options.inputs).to(dtype), int8=int8)
    inputs = [torch.randn(rows, options.inputs).to(dtype) for rows in options.rows]
    return [fastest(lambda x=x: weight.multiply(x)) for x in inputs]  # type: ignore[misc]


def attention(
    options: argparse.Namespace, dtype: torch.dtype, rows: int, queries: int, context: int, *, far: bool = False
) -> float:
    width = -(-context // PAGE_SIZE)
    shape = (rows * width, PAGE_SIZE, options.kv_heads, options.head_dim)
    layers = -(-FAR_BYTES // (2 * math.prod(shape) * dtype.itemsize)) if far else 1
    caches = [KvPages(torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)) for _ in range(layers)]
    query = torch.randn(rows * queries, options.heads, options.head_dim).to(dtype)
    tables = torch.randperm(rows * width).to(torch.int32).view(rows, width)
    device = torch.device("cpu")
    plan = plan_attention([queries] * rows, [context] * rows, tables, PAGE_SIZE, device=device, dtype=dtype)

    def every_layer() -> None:
        for pages in caches:
            paged_attention(query, pages, plan, options.head_dim**-0.5)

    return fastest(every_layer) / layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default=native.instruction_sets()[0], choices=native.instruction_sets())
    parser.add_argument("--inputs", type=int, default=768)
    parser.add_argument("--outputs", type=int, default=2304)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 3, 16, 64, 512])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=64)
    options = parser.parse_args()
    native.use(options.set)
    print(f"{options.set}: {options.inputs} x {options.outputs} for {options.rows} rows, us")
    for name, dtype, int8 in (
        ("float32", torch.float32, False),
        ("bfloat16", torch.bfloat16, False),
        ("bfloat16, weights int8", torch.bfloat16, True),
    ):
        print(f"  {name}: " + " ".join(f"{took:.1f}" for took in products(options, dtype, int8=int8)))
    print(f"attention, {options.heads} heads of {options.head_dim}, {options.kv_heads} of keys, us")
    for batch in BATCHES:
        wide, narrow = (attention(options, dtype, *batch) for dtype in (torch.float32, torch.bfloat16))
        print("  {} rows, {} queries of {} tokens:".format(*batch), f"float32 {wide:.1f} bfloat16 {narrow:.1f}")
    print("from memory, us a layer")
    for batch in FAR:
        wide, narrow = (attention(options, dtype, *batch, far=True) for dtype in (torch.float32, torch.bfloat16))
        print("  {} rows, {} queries of {} tokens:".format(*batch), f"float32 {wide:.1f} bfloat16 {narrow:.1f}")


if __name__ == "__main__":
    main()
