"""How a checkpoint's products are quantized: `quantization_config` of config.json, in the words of four writers.

AWQ and GPTQ (4-bit weights in groups), compressed-tensors (llm-compressor: 4-bit weights, or 8-bit weights and
activations) and fp8 (8 bits, one scale a matrix, or each block of 128 x 128 of it). What is not supported is refused by
file and field, before any weight is read. The controller reads this, too: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from ...core.errors import ConfigError
from .fields import Fields

FIELD = "quantization_config"
BLOCK = 128  # inputs of a rank come in multiples of it with 4-bit weights (kernels/linear_w4a16.py), and with blocks
PLANE = 16  # and a group's size in multiples of this
# Fields that say how a checkpoint was made, or what follows from the tensors.
COMPRESSED_WEIGHTS: dict[str, tuple[object, ...]] = {"symmetric": (True, None), "dynamic": (False, None)}


class Layout(StrEnum):
    """How the tensors of a product are called and laid out."""

    AWQ = "awq"
    GPTQ = "gptq"
    PACKED = "packed"  # compressed-tensors' 4-bit weights
    INT8 = "int8"
    FP8 = "fp8"
    BLOCKS = "fp8 blocks"

    @property
    def mark(self) -> str:
        """The tensor that a quantized product has, and a plain one has not."""
        marks = {
            Layout.AWQ: "qweight", Layout.GPTQ: "qweight", Layout.PACKED: "weight_packed",
            Layout.BLOCKS: "weight_scale_inv",
        }  # fmt: skip
        return marks.get(self, "weight_scale")

    @property
    def grouped(self) -> bool:
        """Whether weights have four bits, in groups."""
        return self in (Layout.AWQ, Layout.GPTQ, Layout.PACKED)


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """One way for all quantized products of a checkpoint.

    `group` inputs share a scale, all of them where it is 0. `zero_offset` is what GPTQ's zeros are stored less.
    `static`: the scale of a product's input is stored, and not taken from each row.
    """

    layout: Layout
    group: int = 0
    zero_offset: int = 0
    static: bool = False


def read_quantization(fields: Fields) -> Quantization | None:
    """What `quantization_config` says; None where there is none. Raises ConfigError."""
    if fields.get(FIELD) is None:
        return None
    inside = fields.inside(FIELD)
    method = inside.choice("quant_method", sorted(READERS), "")
    return READERS[method](inside)


def check_inputs(
    quantization: Quantization, hidden: int, inputs: dict[str, int], tp: int, otherwise: Sequence[int]
) -> None:
    """Whether every product has whole groups and blocks of inputs on a rank: those that take `hidden`, and those whose
    `inputs` (whole sizes, by field) are divided by `tp`. Raises ConfigError with the numbers of `otherwise`, which the
    model's other sizes allow, that would do."""
    blocks = quantization.layout == Layout.BLOCKS
    if not quantization.layout.grouped and not (blocks and tp > 1):
        return
    unit = math.lcm(BLOCK, quantization.group or BLOCK)
    kind = "fp8 weights in blocks" if blocks else "4-bit weights in groups"
    needed = f"{kind} of {quantization.group or 'all inputs'} need a multiple of {unit}"
    if hidden % unit and not blocks:
        raise ConfigError(f"hidden_size = {hidden} cannot be: {needed}")
    for name, whole in inputs.items():
        if whole % (unit * tp):
            fits = [str(n) for n in otherwise if all(size % (unit * n) == 0 for size in inputs.values())]
            raise ConfigError(
                f"tp = {tp} leaves {whole / tp:g} of {name} = {whole} to a rank, and {needed}; "
                + (f"tp can be {', '.join(fits)}" if fits else "no tp fits")
            )


def _awq(fields: Fields) -> Quantization:
    _only(fields, "bits", 4)
    _only(fields, "zero_point", True)
    fields.choice("version", ("gemm", "GEMM"), "gemm")
    return Quantization(layout=Layout.AWQ, group=_group(fields, "group_size", 128))


def _gptq(fields: Fields) -> Quantization:
    _only(fields, "bits", 4)
    if fields.flag("desc_act"):
        raise fields.refuse("desc_act", "= true is not supported: quantize with inputs in their own order")
    if fields.flag("lm_head"):
        raise fields.refuse("lm_head", "= true is not supported")
    if fields.get("dynamic"):
        raise fields.refuse("dynamic", "is not supported: all products have to be quantized alike")
    version = fields.choice("checkpoint_format", ("gptq", "gptq_v2"), "gptq")
    return Quantization(
        layout=Layout.GPTQ, group=_group(fields, "group_size", 128), zero_offset=1 if version == "gptq" else 0
    )


def _fp8(fields: Fields) -> Quantization:
    block = fields.get("weight_block_size")
    if block is not None:
        if block != [BLOCK, BLOCK]:
            raise fields.refuse("weight_block_size", f"= {block} is not supported; [{BLOCK}, {BLOCK}] is")
        fields.choice("activation_scheme", ("dynamic",), "dynamic")
        return Quantization(layout=Layout.BLOCKS, group=BLOCK)
    scheme = fields.choice("activation_scheme", ("dynamic", "static"), "dynamic")
    return Quantization(layout=Layout.FP8, static=scheme == "static")


def _compressed_tensors(fields: Fields) -> Quantization:
    if fields.get("sparsity_config"):
        raise fields.refuse("sparsity_config", "is not supported")
    if fields.get("kv_cache_scheme") is not None:
        raise fields.refuse("kv_cache_scheme", "is not supported: the cache's type is --kv-dtype, and needs no scales")
    groups = fields.inside("config_groups")
    if len(groups.values) != 1:
        raise fields.refuse("config_groups", f"must be one group, got {len(groups.values)}")
    group = groups.inside(next(iter(groups.values)))
    if group.get("targets") != ["Linear"]:
        raise group.refuse("targets", f'= {group.get("targets")!r} is not supported; ["Linear"] is')
    weights, activations = group.inside("weights"), group.inside("input_activations")
    if group.get("output_activations") is not None:
        raise group.refuse("output_activations", "is not supported")
    weights.refuse_unused(COMPRESSED_WEIGHTS)
    if weights.get("num_bits") == 4:
        return _packed(fields, weights, activations)
    return _wide(weights, activations)


def _packed(fields: Fields, weights: Fields, activations: Fields) -> Quantization:
    if activations.values:
        raise activations.refuse("num_bits", "beside 4-bit weights is not supported: activations stay as they are")
    weights.choice("type", ("int",), "int")
    fields.choice("format", ("pack-quantized",), "pack-quantized")
    strategy = weights.choice("strategy", ("group", "channel"), "group")
    if weights.get("actorder") not in (None, False, "weight", "static"):
        raise weights.refuse("actorder", f"= {weights.get('actorder')!r} is not supported: inputs in another order")
    return Quantization(layout=Layout.PACKED, group=_group(weights, "group_size", 128) if strategy == "group" else 0)


def _wide(weights: Fields, activations: Fields) -> Quantization:
    _only(weights, "num_bits", 8)
    kind = weights.choice("type", ("float", "int"), "int")
    weights.choice("strategy", ("tensor", "channel"), "tensor")
    _only(activations, "num_bits", 8)
    activations.choice("type", (kind,), kind)
    if not activations.flag("symmetric", True):
        raise activations.refuse("symmetric", "= false is not supported")
    static = not activations.flag("dynamic")
    activations.choice("strategy", ("tensor",) if static else ("token",), "tensor" if static else "token")
    return Quantization(layout=Layout.FP8 if kind == "float" else Layout.INT8, static=static)


def _only(fields: Fields, name: str, value: int | bool) -> None:
    if fields.get(name, value) != value:
        raise fields.refuse(name, f"= {fields.get(name)!r} is not supported; {str(value).lower()} is")


def _group(fields: Fields, name: str, default: int) -> int:
    """Inputs of a group; 0 for all, which files write as -1."""
    size = fields.get(name, default)
    if size == -1:
        return 0
    if isinstance(size, bool) or not isinstance(size, int) or size < PLANE or size % PLANE:
        raise fields.refuse(name, f"must be -1 or a multiple of {PLANE}, got {size!r}")
    return int(size)


READERS = {"awq": _awq, "compressed-tensors": _compressed_tensors, "fp8": _fp8, "gptq": _gptq}
