"""Tiny quantized checkpoints in the layouts of four writers, and the same weights in float for transformers.

Tensors are laid out here from the writers' descriptions, a word at a time, with nothing of what reads them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from tiny_llamas import write_llama
from tiny_models import write_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

TOLERANCE = 2e-4  # of logits, where inputs are not rounded
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # of the outputs 0 to 7 in a word, four bits each
SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 64}
SHAPE |= {"num_key_value_heads": 2, "num_hidden_layers": 2, "tie_word_embeddings": False, "initializer_range": 0.1}

Stored = dict[str, Tensor]


class Case(NamedTuple):
    """`config` is the checkpoint's quantization_config. `store` gives the tensors of a weight and what they stand for.
    `activations` are "int8" or "fp8" where inputs are quantized, too, by one scale where `input_scale` is above 0,
    by one for each `group` inputs where that is."""

    config: dict[str, Any]
    store: Callable[[Tensor], tuple[Stored, Tensor]]
    activations: str = ""
    input_scale: float = 0.0
    group: int = 0


def words(values: Tensor, places: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """Eight neighbours of the last dimension into an int32: value i at four bits number places[i]."""
    packed = torch.zeros((*values.shape[:-1], values.shape[-1] // 8), dtype=torch.int64)
    for index, place in enumerate(places):
        packed |= values[..., index::8].long() << (4 * place)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def nibbles(weight: Tensor, group: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four bits a weight, scales and zeros [outputs, groups], and what they stand for."""
    outputs, inputs = weight.shape
    cut = weight.view(outputs, -1, inputs if group == -1 else group)
    if symmetric:
        scale = (cut.abs().amax(-1) / 7.5).half().float()
        zero = torch.full_like(scale, 8)
    else:
        low, high = cut.amin(-1).clamp(max=0), cut.amax(-1).clamp(min=0)
        scale = ((high - low) / 15).half().float()
        zero = (-low / scale).round().clamp(0, 15)
    value = (cut / scale.unsqueeze(-1) + zero.unsqueeze(-1)).round().clamp(0, 15)
    dense = (value - zero.unsqueeze(-1)) * scale.unsqueeze(-1)
    return value.view(outputs, inputs).int(), scale, zero.int(), dense.view(outputs, inputs)


def awq(weight: Tensor) -> tuple[Stored, Tensor]:
    value, scale, zero, dense = nibbles(weight, 64, symmetric=False)
    return {
        "qweight": words(value.T.contiguous(), AWQ_PLACES), "qzeros": words(zero.T.contiguous(), AWQ_PLACES),
        "scales": scale.T.half().contiguous(),
    }, dense  # fmt: skip


def gptq(group: int, offset: int, extras: bool) -> Callable[[Tensor], tuple[Stored, Tensor]]:
    def store(weight: Tensor) -> tuple[Stored, Tensor]:
        value, scale, zero, dense = nibbles(weight, group, symmetric=False)
        inputs = weight.shape[1]
        stored = {
            "qweight": words(value).T.contiguous(), "qzeros": words(((zero - offset) & 15).T.contiguous()),
            "scales": scale.T.half().contiguous(),
        }  # fmt: skip
        if extras:
            stored["g_idx"] = (torch.arange(inputs) // (inputs if group == -1 else group)).int()
            stored["bias"] = torch.zeros(len(weight), dtype=torch.float16)
        return stored, dense

    return store


def packed(group: int) -> Callable[[Tensor], tuple[Stored, Tensor]]:
    def store(weight: Tensor) -> tuple[Stored, Tensor]:
        value, scale, _, dense = nibbles(weight, group, symmetric=True)
        shape = torch.tensor(weight.shape)
        return {"weight_packed": words(value), "weight_scale": scale.half(), "weight_shape": shape}, dense

    return store


def wide(kind: str, by_row: bool, input_scale: float = 0.0, flat: bool = False) -> Callable[[Tensor], Any]:
    largest = 127.0 if kind == "int8" else 448.0

    def store(weight: Tensor) -> tuple[Stored, Tensor]:
        scale = weight.abs().amax(1, keepdim=True) if by_row else weight.abs().amax().view(1)
        scale = scale / largest
        value = weight / scale
        narrow = value.round().to(torch.int8) if kind == "int8" else value.to(torch.float8_e4m3fn)
        stored = {"weight": narrow, "weight_scale": scale.view(()) if flat else scale}
        if input_scale:
            stored["input_scale"] = torch.tensor([input_scale])
        return stored, narrow.float() * scale

    return store


def fp8_blocks(weight: Tensor) -> tuple[Stored, Tensor]:
    """One scale for each 128 x 128, in bfloat16, as Qwen's have it; blocks at the ends are smaller."""
    scale = torch.empty(-(-weight.shape[0] // 128), -(-weight.shape[1] // 128))
    value, dense = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            block = slice(128 * row, 128 * row + 128), slice(128 * column, 128 * column + 128)
            scale[row, column] = (weight[block].abs().max() / 440).bfloat16().float()
            value[block] = (weight[block] / scale[row, column]).to(torch.float8_e4m3fn)
            dense[block] = value[block].float() * scale[row, column]
    return {"weight": value, "weight_scale_inv": scale.bfloat16()}, dense


def compressed(form: str, weights: dict[str, Any], activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group},
        "ignore": ["lm_head"], "kv_cache_scheme": None, "quantization_status": "compressed",
    }  # fmt: skip


def bits(kind: str, strategy: str, number: int = 8, **more: Any) -> dict[str, Any]:
    return {"num_bits": number, "type": kind, "strategy": strategy, "symmetric": True, "dynamic": False, **more}


TOKEN = {"dynamic": True}
CASES = {
    "awq": Case({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}, awq),
    "gptq": Case(
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}, gptq(32, 1, True)
    ),
    "gptq-v2": Case(
        {"quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": "gptq_v2"}, gptq(-1, 0, False)
    ),
    "packed": Case(compressed("pack-quantized", bits("int", "group", 4, group_size=128), None), packed(128)),
    "packed-row": Case(compressed("pack-quantized", bits("int", "channel", 4), None), packed(-1)),
    "int8": Case(
        compressed("int-quantized", bits("int", "channel"), bits("int", "token") | TOKEN), wide("int8", True), "int8"
    ),
    "fp8-rows": Case(
        compressed("float-quantized", bits("float", "channel"), bits("float", "token") | TOKEN), wide("fp8", True),
        "fp8",
    ),
    "fp8-static": Case(
        compressed("float-quantized", bits("float", "tensor"), bits("float", "tensor")), wide("fp8", False, 0.02),
        "fp8", 0.02,
    ),
    "fp8": Case(
        {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]},
        wide("fp8", False, flat=True), "fp8",
    ),
    "fp8-blocks": Case(
        {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]},
        fp8_blocks, "fp8", group=128,
    ),
}  # fmt: skip


class Written(NamedTuple):
    """The quantized checkpoint, and the same weights in float."""

    quantized: Path
    dense: Path


def write_quantized(directory: Path, name: str, base: Path | None = None) -> Written:
    """Case `name` of the model in `base`, of a Llama of SHAPE when there is none."""
    case = CASES[name]
    if base is None:
        base = write_llama(directory / "base", seed=7, **SHAPE)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tensors: Stored = {}
    for module, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and module != "lm_head":
            stored, dense = case.store(layer.weight.data)
            layer.weight.data = dense
            tensors |= {f"{module}.{part}": tensor for part, tensor in stored.items()}
            if layer.bias is not None:
                tensors[f"{module}.bias"] = layer.bias.data.clone()
    dense_path, path = directory / "dense", directory / "quantized"
    model.save_pretrained(dense_path)
    shutil.copytree(dense_path, path)
    known = {name.rsplit(".", 1)[0] for name in tensors}
    plain = {name: part.clone() for name, part in model.state_dict().items() if name.rsplit(".", 1)[0] not in known}
    if model.config.tie_word_embeddings:
        del plain["lm_head.weight"]
    save_file(plain | tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": case.config}))
    return Written(path, dense_path)


def write_block_experts(directory: Path, **more: Any) -> Written:
    """A Qwen3-MoE whose projections are all in fp8 blocks, those of its experts, too; norms and routers are not."""
    base = write_model(directory / "base", "qwen3-moe", **more)
    stored: Stored = {}
    dense = load_file(base / "model.safetensors")
    for name, weight in list(dense.items()):
        if name.endswith("_proj.weight"):
            parts, dense[name] = fp8_blocks(weight)
            stored |= {f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()}
        else:
            stored[name] = weight
    both = Written(directory / "quantized", directory / "dense")
    for path, tensors in zip(both, (stored, dense), strict=True):
        shutil.copytree(base, path)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    method = {"quantization_config": CASES["fp8-blocks"].config}
    (both.quantized / "config.json").write_text(json.dumps(config | method))
    return both


def quantize_inputs(model: nn.Module, case: Case) -> None:
    """Makes transformers' model round the inputs of its products as the case does."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        largest = 127.0 if case.activations == "int8" else 448.0
        cut = nn.functional.pad(x, (0, -x.shape[-1] % (case.group or x.shape[-1])))
        cut = cut.unflatten(-1, (-1, case.group or x.shape[-1]))
        scale = cut.abs().amax(-1, keepdim=True).expand(cut.shape).flatten(-2)[..., : x.shape[-1]]
        scale = scale.clamp(min=1e-20) / largest
        if case.input_scale:
            scale = torch.full_like(scale, case.input_scale)
        value = (x / scale).clamp(-largest, largest)
        value = value.round() if case.activations == "int8" else value.to(torch.float8_e4m3fn).float()
        return (value * scale,)

    for module, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and module != "lm_head":
            layer.register_forward_pre_hook(hook)
