"""Adapters that cannot be used are refused by file, field and tensor; the model stays what it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_group import RankGroup
from safetensors.torch import load_file, save_file
from tiny_adapters import edit_adapter, write_adapter

from headway.core.specs import EngineSpec

ENGINE = EngineSpec(page_size=8, max_adapters=2, max_lora_rank=8)
Q = "base_model.model.model.layers.3.self_attn.q_proj"
K = Q.replace("q_proj", "k_proj")


@pytest.fixture(scope="module")
def good(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = checkpoint("gqa-tied")
    return write_adapter(tmp_path_factory.mktemp("good"), base, 0, r=4, target_modules=["q_proj", "down_proj"])


@pytest.fixture(scope="module")
def group(group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]) -> RankGroup:
    group = group_of(1, 1)
    group.load(checkpoint("gqa-tied"), engine=ENGINE)
    return group


def error_of(group: RankGroup, path: Path) -> str:
    ((revision, error),) = group.read_adapter(1, path)
    assert bool(revision) is not bool(error)
    return error


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"lora_bias": True}, "lora_bias = True is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head'] is not supported"),
        ({"peft_type": "LOHA"}, "peft_type = 'LOHA' is not supported"),
        ({"task_type": "SEQ_CLS"}, "task_type = 'SEQ_CLS' is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not supported"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = True is not supported"),
        ({"layer_replication": [[0, 2]]}, "layer_replication = [[0, 2]] is not supported"),
        ({"some_new_option": {"x": 1}}, "some_new_option = {'x': 1} is not supported"),
        ({"r": 0}, "r must be a whole number above 0, got 0"),
        ({"r": 5}, "tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has shape [4, 64]"),
        ({"lora_alpha": "8"}, "lora_alpha must be a number above 0, got '8'"),
        ({"use_rslora": 1}, "use_rslora must be true or false, got 1"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj must be a whole number above 0"),
        ({"rank_pattern": {"(a+)+": 4}}, "rank_pattern has '(a+)+', and only names of modules"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "target_modules has 'embed_tokens', which is not supported"),
        ({"target_modules": ["q_proj", "lm_head"]}, "adapters can change down_proj, gate_proj, k_proj, o_proj, q_proj"),
        ({"target_modules": ["q_proj", "k_proj"]}, "layers.0.self_attn.k_proj.lora_A.weight is missing"),
        ({"target_modules": []}, "target_modules must be a list of module names or 'all-linear', got []"),
        ({"target_modules": ["layers.4.self_attn.q_proj"]}, "target_modules has 'layers.4.self_attn.q_proj'"),
        ({"layers_to_transform": [-1]}, "layers_to_transform must be a layer's number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_fields(group: RankGroup, good: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = Path(shutil.copytree(good, tmp_path / "adapter"))
    edit_adapter(path, **changes)
    error = error_of(group, path)
    assert words in error and str(path) in error


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[new] = tensors.pop(old)

    return change


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop(f"{Q}.lora_B.weight"), f"tensor {Q}.lora_B.weight is missing"),
        (lambda t: [t.pop(f"{Q}.lora_{x}.weight") for x in "AB"], f"tensor {Q}.lora_A.weight is missing"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(60, 4)}), "has shape [60, 4]; the model and"),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 65)}), "imply [4, 64]"),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(256)}), "has shape [256], and a matrix is due"),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 64, dtype=torch.int8)}), "is of type I8, not one of"),
        (
            lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(9, 64), f"{Q}.lora_B.weight": torch.ones(64, 9)}),
            "model.layers.3.self_attn.q_proj has rank 9, above max_lora_rank = 8",
        ),
        (lambda t: t.update({f"{Q}.lora_magnitude_vector": torch.ones(64)}), "lora_magnitude_vector is not supported"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(4, 4)}), "lm_head.weight is not supported"),
        (rename(f"{Q}.lora_A.weight", f"{Q.replace('3', '4')}.lora_A.weight"), "layers.4.self_attn.q_proj.lora_A"),
        (rename(f"{Q}.lora_A.weight", f"{Q}x.lora_A.weight"), "q_projx.lora_A.weight is not supported"),
        (lambda t: t[f"{Q}.lora_A.weight"][1].fill_(float("nan")), f"tensor {Q}.lora_A.weight has values that are not"),
        (lambda t: t[f"{Q}.lora_B.weight"][:, 2].fill_(float("inf")), f"tensor {Q}.lora_B.weight has values that are"),
        (lambda t: t[f"{Q}.lora_B.weight"].fill_(3e38), "that are not finite in float32"),  # once scaled
        (lambda t: t.clear(), "holds no adapter's tensors"),
    ],
)
def test_tensors(group: RankGroup, good: Path, tmp_path: Path, change: Callable[[Any], None], words: str) -> None:
    path = Path(shutil.copytree(good, tmp_path / "adapter"))
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")
    error = error_of(group, path)
    assert words in error and "adapter_model.safetensors" in error


def test_directories(group: RankGroup, good: Path, tmp_path: Path) -> None:
    assert "there is no such directory" in error_of(group, tmp_path / "nothing")
    path = Path(shutil.copytree(good, tmp_path / "adapter"))
    weights = path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "is cut short" in error_of(group, path)
    weights.write_bytes(b"\x80\x04pickle" * 9)
    assert "is no safetensors file" in error_of(group, path)
    weights.rename(path / "adapter_model.bin")
    assert "adapter_model.bin is a pickle, which can run code" in error_of(group, path)
    (path / "adapter_model.bin").unlink()
    assert "has no adapter_model.safetensors" in error_of(group, path)
    weights.write_bytes((good / weights.name).read_bytes())
    (path / "adapter_config.json").write_text("{")
    assert "adapter_config.json cannot be read" in error_of(group, path)
    (path / "adapter_config.json").unlink()
    assert "adapter_config.json" in error_of(group, path)
    assert error_of(group, good) == ""


def test_the_revision_is_that_of_all_its_bytes(group: RankGroup, good: Path, tmp_path: Path) -> None:
    def revision(path: Path) -> str:
        ((found, error),) = group.read_adapter(1, path)
        assert not error
        return found

    path = Path(shutil.copytree(good, tmp_path / "adapter"))
    assert revision(path) == revision(good)
    edit_adapter(path, lora_alpha=9)
    changed = revision(path)
    tensors = load_file(path / "adapter_model.safetensors")
    tensors[f"{Q}.lora_A.weight"][0, 0] += 1
    save_file(tensors, path / "adapter_model.safetensors")
    assert len({revision(good), changed, revision(path)}) == 3


def test_a_replica_without_slots_takes_none(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path], good: Path
) -> None:
    group = group_of(1, 1)
    group.load(checkpoint("gqa-tied"), engine=EngineSpec(page_size=8, max_adapters=0))
    assert "max_adapters is 0" in error_of(group, good)
