"""What quantized checkpoints are refused for: by file and field or tensor, or with the splits that would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_group import spec_for
from safetensors.torch import load_file, save_file
from tiny_quantized import CASES, Written

from headway.core.errors import ConfigError
from headway.worker.execution.model_info import read_model_info
from headway.worker.group.spec import check_group
from headway.worker.model.checkpoint import Checkpoint
from headway.worker.model.registry import load_model, read_config
from headway.worker.parallel.communicator import alone


def changed(model: Path, directory: Path, config: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """A copy of a quantized checkpoint with other fields of quantization_config, and other tensors or without some; in
    their names __ stands for a dot, below layer 0."""
    directory.mkdir(parents=True)
    values = json.loads((model / "config.json").read_text())
    values["quantization_config"] |= config or {}
    (directory / "config.json").write_text(json.dumps(values))
    held = load_file(model / "model.safetensors")
    for short, tensor in tensors.items():
        name = "model.layers.0." + short.replace("__", ".")
        held.pop(name, None)
        if tensor is not None:
            held[name] = tensor
    save_file(held, directory / "model.safetensors")
    return directory


def config_refusals() -> list[tuple[str, dict[str, Any], str]]:
    def group(part: str, **more: Any) -> dict[str, Any]:
        values = json.loads(json.dumps(CASES["int8"].config["config_groups"]))
        values["group_0"] |= {part: (values["group_0"][part] or {}) | more}
        return {"config_groups": values}

    where = "quantization_config.config_groups.group_0."
    return [
        ("awq", {"quant_method": "bitsandbytes"}, "quant_method = 'bitsandbytes' is not supported; these are: awq, co"),
        ("awq", {"quant_method": None}, "quant_method = '' is not supported"),
        ("awq", {"bits": 8}, "quantization_config.bits = 8 is not supported; 4 is"),
        ("awq", {"version": "gemv"}, "version = 'gemv' is not supported"),
        ("awq", {"group_size": 24}, "group_size must be -1 or a multiple of 16, got 24"),
        ("gptq", {"desc_act": True}, "desc_act = true is not supported"),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format = 'marlin' is not supported"),
        ("gptq", {"lm_head": True}, "lm_head = true is not supported"),
        ("gptq", {"dynamic": {"-:x": {}}}, "dynamic is not supported"),
        ("fp8", {"weight_block_size": [64, 128]}, "weight_block_size = [64, 128] is not supported; [128, 128] is"),
        ("fp8-blocks", {"activation_scheme": "static"}, "activation_scheme = 'static' is not supported"),
        ("int8", {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme is not supported"),
        ("int8", {"config_groups": {}}, "config_groups must be one group, got 0"),
        ("int8", group("weights", symmetric=False), where + "weights.symmetric = False is not supported"),
        ("int8", group("weights", num_bits=6), where + "weights.num_bits = 6 is not supported; 8 is"),
        ("int8", group("weights", strategy="block"), where + "weights.strategy = 'block' is not supported"),
        ("int8", group("input_activations", type="float"), where + "input_activations.type = 'float' is not supported"),
        ("int8", group("input_activations", symmetric=False), where + "input_activations.symmetric = false is not"),
        ("int8", group("output_activations", num_bits=8), where + "output_activations is not supported"),
        ("packed", group("weights", num_bits=4), where + "input_activations.num_bits beside 4-bit weights"),
    ]


def test_what_is_not_supported_is_refused_by_file_and_field(written: Callable[[str], Written], tmp_path: Path) -> None:
    for number, (name, changes, message) in enumerate(config_refusals()):
        path = changed(written(name).quantized, tmp_path / str(number), changes)
        with pytest.raises(ConfigError) as refused:
            read_config(path)
        assert f"{path / 'config.json'}: " in str(refused.value) and message in str(refused.value)


def test_tensors_that_do_not_fit_are_refused_by_file_and_name(
    written: Callable[[str], Written], tmp_path: Path
) -> None:
    other_order = torch.arange(128, dtype=torch.int32).flip(0) // 32
    for number, (name, tensors, message) in enumerate((
        ("gptq", {"self_attn__q_proj__g_idx": other_order}, "self_attn.q_proj.g_idx has inputs in another order"),
        ("gptq", {"self_attn__q_proj__bias": torch.ones(256)}, "self_attn.q_proj.bias has no place"),
        ("gptq", {"self_attn__q_proj__scales": None}, "self_attn.q_proj.scales is missing"),
        ("awq", {"mlp__up_proj__qweight": torch.zeros(128, 16, dtype=torch.int32)}, "has shape [128, 16]"),
        ("awq", {"mlp__down_proj__qzeros": torch.zeros(4, 16)}, "qzeros is of type F32, not I32"),
        ("awq", {"self_attn__k_proj__qweight": None}, "layers.0.self_attn.k_proj is not quantized, and model.layers.0"),
        ("packed", {"mlp__up_proj__weight_shape": torch.tensor([1, 2])}, "up_proj.weight_shape is [1, 2], and"),
        ("int8", {"mlp__up_proj__weight": torch.zeros(256, 128)}, "up_proj.weight is of type F32, not I8"),
        ("fp8-static", {"mlp__up_proj__input_scale": None}, "up_proj.input_scale is missing"),
        ("fp8-blocks", {"mlp__up_proj__weight_scale_inv": torch.ones(2, 2)}, "weight_scale_inv has shape [2, 2], and"),
    )):  # fmt: skip
        path = changed(written(name).quantized, tmp_path / str(number), **tensors)
        with pytest.raises(ConfigError) as refused:
            load_model(path, read_config(path), alone("cpu"), torch.float32, torch.device("cpu"), lambda share: None)
        assert str(path) in str(refused.value) or "is not quantized" in message
        assert message in str(refused.value)


def test_splits_that_cut_groups_are_refused_with_the_numbers_that_do_not(
    written: Callable[[str], Written], tmp_path: Path
) -> None:
    """Before any process is started; random weights are refused, too."""
    path = written("awq").quantized
    with pytest.raises(ConfigError, match=r"tp = 4 leaves .* to a rank, and 4-bit weights .* 128; tp can be 1, 2$"):
        check_group(spec_for(path, 4, 1))
    assert check_group(spec_for(written("int8").quantized, 4, 1)) is None
    with pytest.raises(
        ConfigError, match=r"tp = 4 leaves 64 of .* and fp8 weights in blocks of 128 .* tp can be 1, 2$"
    ):
        check_group(spec_for(written("fp8-blocks").quantized, 4, 1))
    values = json.loads((path / "config.json").read_text()) | {"hidden_size": 192}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="hidden_size = 192 cannot be: 4-bit weights in groups of 64 need a multiple"):
        check_group(spec_for(tmp_path, 1, 1))
    with pytest.raises(ConfigError, match="quantization_config with load_format dummy"):
        load_model(
            path, read_config(path), alone("cpu"), torch.float32, torch.device("cpu"), print, load_format="dummy"
        )
    with Checkpoint(path) as checkpoint:
        assert checkpoint.shape("model.layers.0.mlp.up_proj.qweight") == (128, 32)
    assert (
        read_model_info(path, spec_for(path, 1, 1)).revision
        != read_model_info(written("awq").dense, spec_for(path, 1, 1)).revision
    )
