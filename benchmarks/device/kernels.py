"""Each kernel over a grid of shapes: its time, the share of its own floor, and torch's time where torch has it, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import linear_blocks, linear_w4a16, linear_w8a8
from ...kernels.attention_decode import attention_decode
from ...kernels.attention_prefill import attention_prefill, plan_tiles, tile_queries
from ...kernels.fused_moe import Experts, fused_moe, pack_block_experts, pack_experts
from ...kernels.fused_moe_blocks import BlockExperts
from ...kernels.geglu import geglu
from ...kernels.grouped_lora_tiles import LoraSlots, column_blocks, grouped_lora_tiles, plan_lora_tiles
from ...kernels.kv_pages import KvPages
from ...kernels.narrow import quantize_heads
from ...kernels.page_copy import PageTensors, gather_pages
from ...kernels.penalties import Penalty, penalize
from ...kernels.rms_norm import add_rms_norm
from ...kernels.rope_kv_write import rope_kv_write
from ...kernels.rotary import rotary_tables
from ...kernels.sample import Draws, sample
from ...kernels.swiglu import swiglu
from .bed import LATE, Bed
from .flex import Chunks, flex_attention
from .report import Row, told
from .timing import seconds

HEADS, KV_HEADS, DIM, PAGE = 32, 8, 128, 16
HIDDEN, WIDTH = 4096, 14336
HALF = torch.bfloat16


class Case(NamedTuple):
    """`bytes` and `operations` are the least that any way of doing it takes."""

    name: str
    shape: str
    bytes: float
    operations: float
    ours: Callable[[], object]
    peer: Callable[[], object] | None = None


def rows(family: str, bed: Bed) -> Iterator[Row]:
    """The cases of one of FAMILIES. One that fails says so in its line, and the others go on."""
    for case in FAMILIES[family](bed.device, bed.tiny):
        yield Row("kernels", [case.name, case.shape, *([LATE] if bed.late else _measured(case, bed))])
        if bed.device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(case: Case, bed: Bed) -> list[str]:
    try:
        spent = seconds(case.ours, bed.device)
    except Exception as error:
        return [told(error)]
    share = bed.ceilings.floor(case.bytes, case.operations) / spent
    return [f"{spent * 1e6:.0f}", f"{share:.0%}", _peer(case, bed.device)]


def _peer(case: Case, device: torch.device) -> str:
    if case.peer is None:
        return "–"
    try:
        return f"{seconds(case.peer, device) * 1e6:.0f}"
    except Exception as error:  # it is torch's, and takes nothing from ours
        return type(error).__name__


def _pages_for(rows: int, context: int, device: torch.device, cache: torch.dtype) -> tuple[KvPages, Tensor]:
    """Pages of `rows` contexts, strewn over memory, and their block tables."""
    width = -(-context // PAGE)
    order = torch.randperm(rows * width, device=device, dtype=torch.int32).view(rows, width)
    caches = [torch.randn(rows * width, PAGE, KV_HEADS, DIM, device=device, dtype=HALF) for _ in range(2)]
    if cache == HALF:
        return KvPages(*caches), order
    (keys, key_scales), (values, value_scales) = (quantize_heads(one, cache) for one in caches)
    return KvPages(keys, values, key_scales, value_scales), order


def _decode(device: torch.device, tiny: bool) -> Iterator[Case]:
    grid = [(1, 1024), (1, 8192), (8, 4096), (64, 1024), (64, 4096), (64, 8192), (256, 1024), (256, 2048)]
    for rows, context in [(2, 40)] if tiny else grid:
        for cache in (HALF, torch.float8_e4m3fn, torch.int8):
            if cache != HALF and (rows, context) not in ((64, 4096), (2, 40)):
                continue
            pages, tables = _pages_for(rows, context, device, cache)
            query = torch.randn(rows, HEADS, DIM, device=device, dtype=HALF)
            lengths = torch.full((rows,), context, dtype=torch.int32, device=device)
            size = 2 * rows * context * KV_HEADS * (DIM * cache.itemsize + (0 if cache == HALF else 4))

            ours = partial(attention_decode, query, pages, tables, lengths, DIM**-0.5, longest=context)
            yield Case(
                f"decode attention {str(cache).removeprefix('torch.')}", f"{rows} × {context}", size,
                4 * rows * context * HEADS * DIM, ours, _dense(rows, context, device) if cache == HALF else None,
            )  # fmt: skip


def _dense(rows: int, context: int, device: torch.device) -> Callable[[], Tensor]:
    """torch's attention over keys and values that lie side by side, which a paged cache's do not."""
    query = torch.randn(rows, HEADS, 1, DIM, device=device, dtype=HALF)
    key, value = (torch.randn(rows, KV_HEADS, context, DIM, device=device, dtype=HALF) for _ in range(2))
    return lambda: F.scaled_dot_product_attention(query, key, value, enable_gqa=True)


PREFILLS = (
    Chunks(8, 1024, 1024), Chunks(1, 8192, 8192), Chunks(4, 512, 8192), Chunks(4, 4096, 4096, 1024, 50.0),
)  # fmt: skip


def _prefill(device: torch.device, tiny: bool) -> Iterator[Case]:
    for chunks in (Chunks(2, 20, 40), Chunks(1, 30, 30, 10, 50.0)) if tiny else PREFILLS:
        rows, queries, context, window, softcap = chunks
        pages, tables = _pages_for(rows, context, device, HALF)
        query = torch.randn(rows * queries, HEADS, DIM, device=device, dtype=HALF)
        firsts = list(range(0, rows * queries, queries))
        tiles = plan_tiles(firsts, [queries] * rows, [context] * rows, tile_queries(HEADS, KV_HEADS, DIM)).to(device)
        out = torch.empty(rows * queries, HEADS * DIM, device=device, dtype=HALF)
        size = 2 * rows * (context * KV_HEADS * 2 + queries * HEADS * 2) * DIM

        ours = partial(
            attention_prefill, query, pages, tables, tiles, DIM**-0.5, out, window=window, softcap=softcap
        )  # fmt: skip
        extra = f", window {window}, capped" if window else ""
        peer = None if tiny else _dense_prefill(chunks, device)
        flops = 4 * chunks.pairs * HEADS * DIM
        yield Case("prefill attention", f"{rows} × {queries} of {context}{extra}", size, flops, ours, peer)


def _dense_prefill(chunks: Chunks, device: torch.device) -> Callable[[], Tensor]:
    """torch's attention, where nothing is paged: SDPA for whole prompts, FlexAttention where it has no way for them."""
    query = torch.randn(chunks.rows, HEADS, chunks.queries, DIM, device=device, dtype=HALF)
    cache = (chunks.rows, KV_HEADS, chunks.context, DIM)
    key, value = (torch.randn(cache, device=device, dtype=HALF) for _ in range(2))
    if chunks.queries < chunks.context or chunks.window:
        return flex_attention(chunks, query, key, value)
    return lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def _linear(device: torch.device, tiny: bool) -> Iterator[Case]:
    sizes = [(256, 128)] if tiny else [(HIDDEN, 6144), (HIDDEN, 2 * WIDTH), (WIDTH, HIDDEN)]
    for inputs, outputs in sizes:
        wide = torch.randn(outputs, inputs, device=device, dtype=HALF)
        eight = {
            name: quantize_heads(wide, kind) for name, kind in (("int8", torch.int8), ("fp8", torch.float8_e4m3fn))
        }
        nibbles = torch.randint(0, 16, (outputs, inputs), device=device)
        scales = torch.rand(outputs, inputs // 128, device=device, dtype=HALF)
        four = linear_w4a16.pack(nibbles, scales, torch.full_like(scales, 8.0))
        for rows in (2,) if tiny else (1, 16, 64, 256):
            x = torch.randn(rows, inputs, device=device, dtype=HALF)
            shape, flops, around = (
                f"{rows} × {inputs} → {outputs}",
                2 * rows * inputs * outputs,
                rows * (inputs + outputs),
            )
            peer = partial(F.linear, x, wide)
            yield Case("linear bf16 (torch)", shape, 2 * (wide.numel() + around), flops, peer)
            for name, (weight, scale) in eight.items():
                ours = partial(linear_w8a8.linear_w8a8, x, weight, scale)
                yield Case(f"linear {name}", shape, wide.numel() + 2 * around, flops, ours, peer)
            narrow = wide.to(torch.float8_e4m3fn), torch.ones(outputs, inputs // 128, device=device)
            ours = partial(linear_blocks.linear_blocks, x, *narrow)
            size = wide.numel() * (1 + 4 / 128) + 2 * around
            yield Case("linear fp8 blocks", shape, size, flops, ours, peer)
            ours = partial(linear_w4a16.linear_w4a16, x, four)
            yield Case("linear 4-bit", shape, wide.numel() * (0.5 + 4 / 128) + 2 * around, flops, ours, peer)


def _experts(device: torch.device, tiny: bool) -> Iterator[Case]:
    """A layer of Qwen3-30B-A3B. Of the weights the chosen experts' count alone."""
    count, k, hidden, width = (4, 2, 128, 128) if tiny else (128, 8, 2048, 768)
    wide = Experts(
        torch.randn(count, 2 * width, hidden, device=device, dtype=HALF) / hidden**0.5,
        torch.randn(count, hidden, width, device=device, dtype=HALF) / width**0.5,
    )
    scales = [torch.ones(*one.shape[:2], one.shape[2] // 128, device=device) for one in wide]
    eight = [one.to(torch.float8_e4m3fn) for one in wide]
    narrow = pack_block_experts(BlockExperts(eight[0], scales[0], eight[1], scales[1]), HALF)
    kinds = (("bf16", pack_experts(*wide), 2.0), ("fp8 blocks", narrow, 1 + 4 / 128))
    for rows in (3,) if tiny else (1, 16, 64, 256, 2048):
        x = torch.randn(rows, hidden, device=device, dtype=HALF)
        shares, chosen = torch.rand(rows, count, device=device).topk(k, -1)
        weights = 3 * hidden * width
        for name, experts, each in kinds:
            size = int(torch.bincount(chosen.flatten()).count_nonzero()) * weights * each + 2 * 2 * rows * hidden
            ours = partial(fused_moe, x, experts, chosen, shares)
            yield Case(f"experts {name}", f"{rows} × {k} of {count}", size, 2 * rows * k * weights, ours)


def _adapters(device: torch.device, tiny: bool) -> Iterator[Case]:
    """One row in each adapter, then many in few: queries, keys and values of a layer at rank 16."""
    widths = (64, 64) if tiny else (HIDDEN, KV_HEADS * DIM, KV_HEADS * DIM)
    inputs, most = (128, 4) if tiny else (HIDDEN, 16)
    for rows, adapters in [(3, 2)] if tiny else [(8, 8), (64, 8), (512, 1)]:
        down = torch.randn(adapters, len(widths), most, inputs, device=device, dtype=HALF)
        up = torch.randn(adapters, sum(widths), most, device=device, dtype=HALF)
        ranks = torch.full((adapters, len(widths)), most, dtype=torch.int32, device=device)
        slots = LoraSlots(down, up, ranks, column_blocks(widths).to(device))
        tiles = plan_lora_tiles(np.arange(rows, dtype=np.int32) % adapters, device)
        x, out = (torch.randn(rows, size, device=device, dtype=HALF) for size in (inputs, sum(widths)))
        size = 2 * (down.numel() + up.numel() + x.numel() + 2 * out.numel())
        flops = 2 * rows * most * (len(widths) * inputs + sum(widths))
        run = partial(grouped_lora_tiles, out, x, slots, tiles)
        yield Case("adapters", f"{rows} rows, {adapters} of rank {most}", size, flops, run)


def _elementwise(device: torch.device, tiny: bool) -> Iterator[Case]:
    cos, sin = (one.to(device) for one in rotary_tables(torch.rand(DIM // 2), 4096, HALF))
    for tokens in (3,) if tiny else (64, 2048):
        x, residual = (torch.randn(tokens, HIDDEN, device=device, dtype=HALF) for _ in range(2))
        weight = torch.ones(HIDDEN, device=device, dtype=HALF)
        size = tokens * HIDDEN * 2
        yield Case(
            "add + rms norm", f"{tokens} × {HIDDEN}", 4 * size, 0,
            partial(add_rms_norm, x, residual, weight, 1e-5),
            partial(_torch_add_norm, x, residual, weight),
        )  # fmt: skip
        gate_up = torch.randn(tokens, 2 * WIDTH, device=device, dtype=HALF)
        yield Case("swiglu", f"{tokens} × {WIDTH}", 6 * tokens * WIDTH, 0, partial(swiglu, gate_up))
        yield Case("geglu", f"{tokens} × {WIDTH}", 6 * tokens * WIDTH, 0, partial(geglu, gate_up))
        pages, _ = _pages_for(max(1, tokens // 64), 64, device, HALF)
        qkv = torch.randn(tokens, HEADS + 2 * KV_HEADS, DIM, device=device, dtype=HALF)
        positions, slots = (torch.randperm(pages.keys.shape[0] * PAGE, device=device)[:tokens] for _ in range(2))
        yield Case(
            "rope + KV write", f"{tokens} × {HEADS + 2 * KV_HEADS} heads", 4 * qkv.numel() + 4 * tokens * DIM, 0,
            partial(rope_kv_write, qkv, cos, sin, positions, slots, pages, HEADS),
        )  # fmt: skip


def _torch_add_norm(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(residual.add_(x), weight.shape, weight, 1e-5)


def _sampling(device: torch.device, tiny: bool) -> Iterator[Case]:
    rows, vocab = (2, 100) if tiny else (64, 128256)
    logits = torch.randn(rows, vocab, device=device)
    ones = torch.ones(rows, device=device)
    whole = torch.arange(rows, device=device)
    plain = Draws(ones, torch.zeros_like(whole).int(), ones, 0 * ones, whole, whole, 0 * whole)
    filtered = plain._replace(top_k=plain.top_k + 50, top_p=0.9 * ones)
    size = 4 * logits.numel()
    yield Case("sample", f"{rows} × {vocab}", size, 0, partial(sample, logits, plain, filtered=False))
    seen, counts = torch.ones_like(logits, dtype=torch.bool), torch.ones_like(logits)
    penalties = [Penalty(row, seen[row], counts[row], 1.1, 0.1, 0.1) for row in range(rows)]
    yield Case("penalties", f"{rows} × {vocab}", 13 * logits.numel(), 0, partial(penalize, logits.clone(), penalties))
    yield Case(
        "sample top-k top-p", f"{rows} × {vocab}", size, 0, partial(sample, logits, filtered, filtered=True),
        partial(torch.sort, logits, descending=True),
    )  # fmt: skip


def _pages(device: torch.device, tiny: bool) -> Iterator[Case]:
    layers, pages = (2, 8) if tiny else (32, 2048)
    tensors = [torch.zeros(pages, PAGE, KV_HEADS, DIM, device=device, dtype=HALF) for _ in range(layers)]
    group, chosen = PageTensors(tensors), torch.randperm(pages, device=device)[: pages // 2]
    size = 2 * len(chosen) * group.words * 4
    yield Case("page gather", f"{len(chosen)} pages × {layers}", size, 0, partial(gather_pages, group, chosen))


FAMILIES: dict[str, Callable[[torch.device, bool], Iterator[Case]]] = {
    "decode attention": _decode, "prefill attention": _prefill, "linear": _linear, "experts": _experts,
    "adapters": _adapters, "elementwise": _elementwise, "sampling": _sampling, "pages": _pages,
}  # fmt: skip
