"""Experts that lie stacked in a checkpoint are those that lie one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_group import RankGroup
from safetensors.torch import load_file, save_file
from script import Script
from tiny_models import write_stacked

from headway.core.errors import ConfigError
from headway.worker.model.registry import load_model, read_config
from headway.worker.parallel.communicator import alone

PROMPT = [5, 9, 3, 100, 42, 77]


def decode(group: RankGroup, path: Path) -> tuple[list[int], np.ndarray]:
    group.load(path)
    script = Script(group)
    row = script.add(0, PROMPT)
    script.finish(6)
    return row.output, np.stack(row.logits)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 2)], ids=["tp1", "tp2", "tp2-pp2"])
@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_both_layouts_are_one_model_to_the_bit(
    name: str,
    shape: tuple[int, int],
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    stacked = write_stacked(checkpoint(name), tmp_path)
    assert any(key.endswith("mlp.experts.gate_up_proj") for key in load_file(stacked / "model.safetensors"))
    group = group_of(*shape)
    tokens, logits = decode(group, checkpoint(name))
    again, same = decode(group, stacked)
    assert again == tokens
    assert np.array_equal(same, logits)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("model.layers.3.mlp.experts.down_proj", None, "is missing"),
        ("model.layers.2.mlp.experts.gate_up_proj", torch.zeros(4, 95, 64), r"has shape \[4, 95, 64\]"),
        ("model.layers.2.mlp.experts.0.w1.weight", torch.zeros(48, 64), "has no place in MixtralForCausalLM"),
    ],
)
def test_stacks_that_cannot_be_used(
    name: str, tensor: torch.Tensor | None, words: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    stacked = write_stacked(checkpoint("mixtral"), tmp_path)
    file = stacked / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), file)
    with pytest.raises(ConfigError, match=f"tensor {re.escape(name)} {words}"):
        load_model(stacked, read_config(stacked), alone(), torch.float32, torch.device("cpu"), lambda share: None)
