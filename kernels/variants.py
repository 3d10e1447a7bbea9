"""The kernels as the engine launches them for models of today: what is compiled ahead of time to see that it builds.

`python -m headway.kernels.variants` compiles them all for Ampere and Hopper and prints what each takes. No GPU is
needed: Triton brings its assembler along.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from . import (
    attention_decode,
    attention_prefill,
    fused_moe,
    fused_moe_blocks,
    gated,
    grouped_lora_tiles,
    launch,
    linear_blocks,
    linear_invariant,
    linear_w4a16,
    linear_w8a8,
    page_copy,
    penalties,
    rms_norm,
    rope_kv_write,
    sample,
    vocab_embedding,
)

CAPABILITIES = (80, 90)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes that one program may take


class Variant(NamedTuple):
    """One specialization. `signature` holds the types of its run-time arguments, `constants` its compile-time ones.

    Pointers, and the integers named in `multiples`, are multiples of 16, as the launcher finds them to be.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    multiples: tuple[str, ...] = ()


class Compiled(NamedTuple):
    """What the assembler says of one variant on one chip; `spills` in bytes of local memory a thread."""

    name: str
    capability: int
    registers: int
    spills: int
    shared: int


def variants(capability: int) -> Iterator[Variant]:
    """Every kernel as devices of this capability get it: bf16 models, of attention with each size of head, cache and
    page, and some of fp16."""
    yield from _elementwise()
    yield from _attention(capability // 10 in launch.ROOMY)
    yield from _linear()
    yield from _lora()
    yield from _sampling()


def _elementwise() -> Iterator[Variant]:
    pointers = {"x": "*bf16", "residual": "*bf16", "weight": "*bf16", "out": "*bf16", "eps": "fp32"}
    for hidden in (1024, 4096, 8192):
        constants = {"HIDDEN": hidden, "ADD": True, "BLOCK": hidden}
        yield Variant(f"add_rms_norm {hidden}", rms_norm.rms_norm_kernel, pointers, constants, min(16, hidden // 512))
    for name, gelu in (("swiglu", False), ("geglu", True)):
        constants = {"WIDTH": 14336, "GELU": gelu, "BLOCK": gated.BLOCK}
        yield Variant(name, gated.gated_kernel, {"gate_up": "*bf16", "out": "*bf16"}, constants)
    for cache, kind, norms in (("bf16", "*bf16", False), *((cache, kind, True) for cache, kind in CACHES.items())):
        signature = {
            "qkv": "*bf16", "cos": "*bf16", "signed_sin": "*bf16", "positions": "*i64", "slots": "*i64",
            "query": "*bf16", "keys": kind, "values": kind, "key_scales": "*fp32", "value_scales": "*fp32",
            "query_norm": "*bf16", "key_norm": "*bf16", "eps": "fp32",
        }  # fmt: skip
        constants = {
            "HEADS": 32, "KV_HEADS": 8, "DIM": 128, "ROTARY": 128, "BLOCK": 128, "NORMS": norms,
            "NARROW": cache != "bf16", "INT8": cache == "int8",
        }  # fmt: skip
        name = f"rope_kv_write {cache}{' normed' if norms else ''}"
        yield Variant(name, rope_kv_write.rope_kv_write_kernel, signature, constants, 1)


CACHES = {"bf16": "*bf16", "fp8": "*fp8e4nv", "int8": "*i8"}
KINDS = {**CACHES, "fp16": "*fp16"}


class AttentionVariant(NamedTuple):
    """`group` query heads share a KV head; `bounded`: with a window and capped scores."""

    dim: int
    group: int
    cache: str = "bf16"
    bounded: bool = False
    page: int = 16
    kind: str = "bf16"

    @property
    def name(self) -> str:
        told = (self.cache, "bounded" if self.bounded else "", f"page {self.page}" if self.page != 16 else "")
        return " ".join(filter(None, (str(self.dim), *told, f"of {self.kind}" if self.kind != "bf16" else "")))


ATTENTION = (
    AttentionVariant(64, 2), AttentionVariant(96, 1), AttentionVariant(128, 4),
    AttentionVariant(64, 2, "fp8"), AttentionVariant(64, 2, "int8"),
    AttentionVariant(96, 1, "fp8"), AttentionVariant(96, 1, "int8"),
    AttentionVariant(128, 4, "fp8"), AttentionVariant(128, 4, "int8"),
    AttentionVariant(256, 2, bounded=True), AttentionVariant(256, 2, "fp8", bounded=True),
    AttentionVariant(256, 2, "int8", bounded=True), AttentionVariant(256, 2), AttentionVariant(256, 2, "fp8"),
    AttentionVariant(128, 8, bounded=True), AttentionVariant(128, 4, page=32), AttentionVariant(128, 4, page=64),
    AttentionVariant(128, 4, "fp16", kind="fp16"), AttentionVariant(128, 4, "int8", kind="fp16"),
)  # fmt: skip


def _attention(roomy: bool) -> Iterator[Variant]:
    for one in ATTENTION:
        kind, model, narrow = KINDS[one.cache], KINDS[one.kind], one.cache in ("fp8", "int8")
        dim, group = one.dim, one.group
        shared = {
            "query": model, "keys": kind, "values": kind, "key_scales": "*fp32", "value_scales": "*fp32",
            "tables": "*i32",
        }  # fmt: skip
        scalars = {"scale": "fp32", "softcap": "fp32", "window": "i32", "table_width": "i32"}
        constants = {
            "KV_HEADS": 8, "GROUP": group, "DIM": dim, "DIM_BLOCK": attention_decode.dim_block(dim), "PAGE": one.page,
            "WINDOW": one.bounded, "SOFTCAP": one.bounded, "NARROW": narrow, "PRECISION": "tf32",
        }  # fmt: skip
        block, stages, warps = attention_decode.pipeline(dim, narrow)
        yield Variant(
            f"decode {one.name}", attention_decode.decode_kernel,
            shared | {"lengths": "*i32", "partial": "*fp32", "weights": "*fp32"} | scalars | {"parts": "i32"},
            constants | {"GROUP_BLOCK": attention_decode.LEAST_ROWS, "SPLIT": attention_decode.SPLIT, "BLOCK": block},
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        rows = attention_prefill.tile_queries(8 * group, 8, dim) * group
        block, stages, warps = attention_prefill.pipeline(dim, narrow, roomy)
        yield Variant(
            f"prefill {one.name}", attention_prefill.prefill_kernel,
            shared | {"tiles": "*i32", "out": model} | scalars,
            constants | {"GROUP_BLOCK": group, "ROWS": rows, "BLOCK": block, "UNMASKED": roomy},
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    yield Variant(
        "decode merge", attention_decode.merge_kernel,
        {"partial": "*fp32", "weights": "*fp32", "out": "*bf16", "parts": "i32"},
        {"DIM": 128, "DIM_BLOCK": 128, "MOST": attention_decode.MOST_PARTS, "AT_ONCE": attention_decode.MERGED}, 1,
    )  # fmt: skip


def _linear() -> Iterator[Variant]:
    for rows in (16, 32, 48, 64):  # each block of rows, and the largest with the inputs in parts and in one
        shared = {"rows": "i32", "outputs": "i32"}
        splits = linear_w8a8.input_splits(rows, 4096, 4096)
        common: dict[str, Any] = {"INPUTS": 4096, "SPLITS": splits, "BIAS": False}
        common["BLOCK_ROWS"] = linear_w8a8.row_block(rows)
        for name, kind in (("int8", "*i8"), ("fp8", "*fp8e4nv")):
            pointers = {
                "x": kind, "scales": "*fp32", "weight": kind, "weight_scales": "*fp32", "bias": "*bf16",
                "out": "*bf16" if splits == 1 else "*fp32",
            }  # fmt: skip
            blocks = {"BLOCK_OUT": linear_w8a8.BLOCK_OUT, "BLOCK_IN": linear_w8a8.BLOCK_IN}
            constants = common | blocks | {"INT8": name == "int8"}
            kernel = linear_w8a8.w8a8_kernel
            yield Variant(f"w8a8 {rows} {name}", kernel, pointers | shared, constants, 4, 4, ("outputs",))
        yield Variant(
            f"blocks {rows} fp8", linear_blocks.blocks_kernel,
            {"x": "*fp8e4nv", "x_scales": "*fp32", "weight": "*fp8e4nv", "weight_scales": "*fp32", "bias": "*bf16",
             "out": "*bf16" if splits == 1 else "*fp32"} | shared,
            common | {"BLOCK_OUT": linear_blocks.BLOCK_OUT}, 4, 4, ("outputs",),
        )  # fmt: skip
        part = linear_w4a16.part_blocks(rows, 4096, 4096)
        splits = -(-4096 // (linear_w4a16.PACKED * part))
        block, at_once, warps = linear_w4a16.pipeline(rows, 4096, half=True)
        pointers = {
            "x": "*bf16", "words": "*i32", "scales": "*i32", "bias": "*bf16",
            "parts": "*bf16" if splits == 1 else "*fp32", "counts": "*i32", "out": "*bf16",
        }  # fmt: skip
        for group, kind in ((16, "bf16"), (32, "bf16"), (128, "bf16"), (128, "fp16"), (4096, "bf16")):
            constants = common | {
                "GROUP": group, "SPLITS": splits, "PART": part, "AT_ONCE": at_once, "HALF": True, "BLOCK_ROWS": block,
                "BLOCK_OUT": linear_w4a16.BLOCK_OUT, "PRECISION": "tf32",
            }  # fmt: skip
            kinds = {name: f"*{kind}" if of == "*bf16" else of for name, of in pointers.items()} | shared
            name = f"w4a16 {rows} by {group} {kind}"
            yield Variant(name, linear_w4a16.w4a16_kernel, kinds, constants, warps, 3, ("outputs",))
    invariant = linear_invariant
    for name, outputs, apart in (("few", 4096, True), ("many", 4096, False), ("wide", 28672, False)):
        yield Variant(
            f"invariant {name}", invariant.invariant_kernel,
            {"x": "*bf16", "weight": "*bf16", "bias": "*bf16", "out": "*fp32" if apart else "*bf16"} | shared,
            {"INPUTS": 4096, "PARTS": invariant.input_parts(outputs, 4096), "APART": apart, "BIAS": False,
             "PRECISION": "tf32", "BLOCK_ROWS": invariant.BLOCK_ROWS, "BLOCK_OUT": invariant.BLOCK_OUT,
             "BLOCK_IN": invariant.BLOCK_IN},
            4, 4, ("outputs",),
        )  # fmt: skip
    yield Variant(
        "quantize rows int8", linear_w8a8.quantize_kernel,
        {"x": "*bf16", "narrow": "*i8", "scales": "*fp32", "static": "*fp32"},
        {"INPUTS": 4096, "BLOCK": 4096, "INT8": True, "STATIC": False}, 8,
    )  # fmt: skip
    yield Variant(
        "quantize rows fp8 static", linear_w8a8.quantize_kernel,
        {"x": "*bf16", "narrow": "*fp8e4nv", "scales": "*fp32", "static": "*fp32"},
        {"INPUTS": 4096, "BLOCK": 4096, "INT8": False, "STATIC": True}, 8,
    )  # fmt: skip
    yield Variant(
        "quantize groups fp8", linear_blocks.quantize_groups_kernel,
        {"x": "*bf16", "narrow": "*fp8e4nv", "scales": "*fp32"},
        {"INPUTS": 4096, "GROUPS": 32, "AT_ONCE": linear_blocks.GROUPS_AT_ONCE},
    )  # fmt: skip
    yield Variant(
        "add parts", linear_w8a8.add_parts_kernel,
        {"parts": "*fp32", "bias": "*bf16", "out": "*bf16", "rows": "i32", "outputs": "i32"},
        {"SPLITS": 8, "BIAS": False, "BLOCK": 1024},
    )  # fmt: skip

    for rows in (fused_moe.FEW_ROWS, fused_moe.MANY_ROWS):
        shared = {"out": "*bf16", "places": "*i64", "owners": "*i64", "total": "i32"}
        constants = {"SHARE": 8, "INPUTS": 2048, "OUTPUTS": 1536, "BLOCK_ROWS": rows}
        yield Variant(
            f"experts {rows}", fused_moe.grouped_kernel, {"x": "*bf16", "weight": "*bf16"} | shared,
            constants | {"BLOCK_OUT": fused_moe.BLOCK_OUT, "BLOCK_IN": fused_moe.BLOCK_IN, "PRECISION": "tf32"}, 4, 4,
        )  # fmt: skip
        yield Variant(
            f"experts {rows} fp8 blocks", fused_moe_blocks.grouped_blocks_kernel,
            {"x": "*fp8e4nv", "x_scales": "*fp32", "weight": "*fp8e4nv", "weight_scales": "*fp32"} | shared,
            constants | {"GROUPS": 16, "BLOCK_OUT": fused_moe_blocks.BLOCK_OUT}, 4, 4,
        )  # fmt: skip


def _lora() -> Iterator[Variant]:
    tiles, rows = grouped_lora_tiles, grouped_lora_tiles.TILE_ROWS
    for kind, sizes in (("bf16", (16, 64, 256)), ("fp16", (16,))):
        for most in sizes:
            block = min(tiles.RANK_BLOCK, most)
            common = {
                "PROJECTIONS": 3, "MOST": most, "RANK_BLOCK": block, "RANK_BLOCKS": most // block, "ROWS": rows,
                "PRECISION": "tf32",
            }  # fmt: skip
            shared = {"ranks": "*i32", "tiles": "*i32", "thin": "*fp32"}
            yield Variant(
                f"lora shrink {most} {kind}", tiles.shrink_kernel, {"x": f"*{kind}", "down": f"*{kind}"} | shared,
                {"INPUTS": 4096, "SPLIT": tiles.SPLIT, "BLOCK_IN": tiles.BLOCK_IN, **common}, 4, 3,
            )  # fmt: skip
            yield Variant(
                f"lora expand {most} {kind}", tiles.expand_kernel,
                {"out": f"*{kind}", "up": f"*{kind}", "columns": "*i32"} | shared,
                {"OUTPUTS": 6144, "SPLITS": 4, "BLOCK_OUT": tiles.BLOCK_OUT, **common}, 4, 2,
            )  # fmt: skip


def _sampling() -> Iterator[Variant]:
    floats = dict.fromkeys(("logits", "temperatures", "top_ps", "min_ps", "bests"), "*fp32")
    least = {"LEAST_TEMPERATURE": sample.LEAST_TEMPERATURE}
    yield Variant(
        "sample floor", sample.floor_kernel, floats | {"top_ks": "*i32", "floors": "*i32", "vocab_size": "i32"},
        {"BLOCK": sample.SEARCH_BLOCK, **least}, 8, 3, ("vocab_size",),
    )  # fmt: skip
    for filtered in (False, True):
        yield Variant(
            f"sample draw{' filtered' if filtered else ''}", sample.draw_kernel,
            floats | {"seeds": "*i64", "positions": "*i64", "sequences": "*i64", "floors": "*i32", "scores": "*fp32",
                      "places": "*i32", "vocab_size": "i32"},
            {"FILTERED": filtered, "BLOCK": sample.BLOCK, **least}, 4, 3, ("vocab_size",),
        )  # fmt: skip
    yield Variant(
        "sample choose", sample.choose_kernel,
        {"scores": "*fp32", "places": "*i32", "tokens": "*i64", "parts": "i32"}, {"BLOCK": 64}, 1,
    )  # fmt: skip
    yield Variant(
        "penalize", penalties.penalize_kernel,
        {"logits": "*fp32", "places": "*i64", "strengths": "*fp32", "vocab_size": "i32"},
        {"BLOCK": penalties.BLOCK}, 4, 3, ("vocab_size",),
    )  # fmt: skip
    yield Variant(
        "vocab embedding", vocab_embedding.vocab_embedding_kernel,
        {"token_ids": "*i64", "table": "*bf16", "out": "*bf16", "first": "i32", "held": "i32"},
        {"HIDDEN": 4096, "BLOCK": vocab_embedding.BLOCK},
    )  # fmt: skip
    yield Variant(
        "page copy", page_copy.page_copy_kernel, {"places": "*i64", "pages": "*i64", "copies": "*i32"},
        {"WORDS": 8192, "WRITE": False, "BLOCK": page_copy.BLOCK},
    )  # fmt: skip


def compile_variant(variant: Variant, capability: int) -> Compiled:
    """Builds the machine code of one variant. Raises what Triton raises when it does not build."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if signature[name].startswith("*") or name in variant.multiples
    }
    constants = {(names.index(name),): value for name, value in variant.constants.items() if name in names}
    source = ASTSource(variant.kernel, signature, constants, attributes)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    built = launch.triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spills = _resources(built.asm["cubin"])
    return Compiled(variant.name, capability, registers, spills, built.metadata.shared)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and spilled bytes of a thread."""
    tool = Path(launch.triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        dump = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", dump)
    assert found is not None, f"cuobjdump says nothing of registers: {dump}"
    return int(found[1]), int(found[2])


def main() -> int:
    jobs = [(variant, capability) for capability in CAPABILITIES for variant in variants(capability)]
    jobs = [job for job in jobs if not (job[1] < 89 and "fp8" in job[0].name)]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda job: compile_variant(*job), jobs))
    print(f"{'kernel':28} {'sm':>3} {'registers':>9} {'spills':>6} {'shared':>7}")
    bad = 0
    for row in rows:
        over = row.spills > 0 or row.shared > SHARED_LIMIT[row.capability]
        bad += over
        print(
            f"{row.name:28} {row.capability:3} {row.registers:9} {row.spills:6} {row.shared:7}{'  !' if over else ''}"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
