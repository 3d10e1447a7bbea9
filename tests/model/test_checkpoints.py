"""Checkpoints of other layouts load; those that cannot work are refused by file, field and tensor, before Ready."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rank_group import PAGE_SIZE, RankGroup, spec_for
from safetensors.torch import load_file, save_file
from script import Script
from tiny_llamas import LLAMA3, Oracle, edit_config, write_llama

from headway.core.errors import ConfigError
from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec
from headway.worker.execution.model_info import read_model_info
from headway.worker.execution.runner import Runner
from headway.worker.model.revision import model_revision
from headway.worker.parallel.communicator import alone

PROMPT = [5, 9, 3, 100, 42, 77]


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint that the test may spoil."""
    return Path(shutil.copytree(checkpoint("gqa-tied"), tmp_path / "model"))


def load(path: Path, tp: int = 1, pp: int = 1, **changes: Any) -> Runner:
    return Runner(spec_for(path, tp, pp, **changes), alone(), lambda share: None)


def generates(group: RankGroup, path: Path) -> list[int]:
    group.load(path)
    script = Script(group)
    row = script.add(0, PROMPT)
    script.finish(8)
    return row.output


def test_shards_with_an_index(group_of: Callable[[int, int], RankGroup], tmp_path: Path) -> None:
    write_llama(tmp_path, shard="100KB", num_key_value_heads=2)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert generates(group_of(2, 1), tmp_path) == Oracle(tmp_path).greedy(PROMPT, 8)


@pytest.mark.parametrize("rope", [LLAMA3, {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}])
def test_configuration_of_older_transformers(
    rope: dict[str, Any], group_of: Callable[[int, int], RankGroup], tmp_path: Path
) -> None:
    write_llama(tmp_path, num_key_value_heads=2, rope_parameters=rope)
    expected = Oracle(tmp_path).greedy(PROMPT, 8)
    scaling = {("type" if name == "rope_type" else name): rope[name] for name in rope if name != "rope_theta"}
    edit_config(
        tmp_path, "rope_parameters", "dtype", rope_theta=rope["rope_theta"], rope_scaling=scaling, torch_dtype="float32"
    )
    assert generates(group_of(1, 1), tmp_path) == expected
    edit_config(tmp_path, rope_theta=9.0)
    assert generates(group_of(1, 1), tmp_path) != expected  # the field is really read


def test_progress_goes_from_zero_to_one(copied: Path) -> None:
    shares: list[float] = []
    Runner(spec_for(copied, 1, 1), alone(), shares.append)
    assert shares[0] == 0 and shares[-1] == 1
    assert shares == sorted(shares) and len(set(shares)) > 10


def test_each_rank_reads_only_its_slice(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    whole = group_of(1, 1).load(checkpoint("gqa-tied"))[0]
    parts = group_of(2, 2).load(checkpoint("gqa-tied"))
    assert [part.kv_bytes_per_page * 4 for part in parts] == [whole.kv_bytes_per_page] * 4
    assert len({part.revision for part in parts} | {whole.revision}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "architecture GPT2LMHeadModel is not supported; these are: .*LlamaForCausalLM",
        ),
        ({"architectures": []}, "architectures must name one"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number above 0, got '64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number above 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3 must divide num_attention_heads = 4"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ({"sliding_window": 128}, "sliding_window = 128 is not supported"),
        ({"quantization_config": {"quant_method": "hqq"}}, "quantization_config.quant_method = 'hqq' is not supported"),
        (
            {"rope_parameters": {"rope_type": "mrope", "factor": 2.0}},
            "rope_parameters.rope_type = 'mrope' is not supported",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.factor must be a number above 0"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        ({"rms_norm_eps": -1}, "rms_norm_eps must be a number above 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({"vocab_size": 200}, r"model.embed_tokens.weight has shape \[128, 64\], and config.json implies \[200, 64\]"),
        ({"intermediate_size": 100}, r"mlp.gate_proj.weight has shape \[96, 64\]"),
        ({"num_hidden_layers": 5}, "tensor model.layers.4.input_layernorm.weight is missing"),
        ({"tie_word_embeddings": False}, "tensor lm_head.weight is missing"),
        ({"attention_bias": True}, "tensor model.layers.0.self_attn.q_proj.bias is missing"),
        ({"eos_token_id": 5000}, "eos_token_id = 5000 is not below vocab_size"),
    ],
)
def test_configurations_that_cannot_work(copied: Path, changes: dict[str, Any], message: str) -> None:
    (copied / "generation_config.json").unlink(missing_ok=True)
    edit_config(copied, **changes)
    with pytest.raises(ConfigError, match=message) as refused:
        load(copied)
    assert str(copied) in str(refused.value)


@pytest.mark.parametrize(
    ("tp", "pp", "message"),
    [
        (3, 1, "tp = 3 does not divide num_attention_heads = 4; tp can be 1, 2, 4"),
        (8, 1, "tp = 8 does not divide num_attention_heads = 4; tp can be 1, 2, 4"),
        (1, 3, "pp = 3 does not divide num_hidden_layers = 4; pp can be 1, 2, 4"),
    ],
)
def test_uneven_divisions_name_what_works(copied: Path, tp: int, pp: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_model_info(copied, spec_for(copied, tp, pp))


def test_missing_files(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        load(tmp_path)
    (copied / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"neither model\.safetensors nor"):
        load(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        load(copied)


def test_revision_names_what_is_computed(copied: Path, tmp_path: Path) -> None:
    first = model_revision(copied)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert model_revision(Path(shutil.copytree(copied, tmp_path / "elsewhere"))) == first
    edit_config(copied, rms_norm_eps=1e-3)
    second = model_revision(copied)
    tensors = load_file(copied / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] += 0.01
    save_file(tensors, copied / "model.safetensors")
    assert len({first, second, model_revision(copied)}) == 3


def test_revision_samples_big_files(copied: Path) -> None:
    """A change of all weights shows, though not every byte is read."""
    big = torch.zeros(2_000_000)
    save_file({"weight": big}, copied / "model.safetensors")
    first = model_revision(copied)
    save_file({"weight": big + 1e-6}, copied / "model.safetensors")
    assert model_revision(copied) != first


def test_defaults_of_the_generation_config(copied: Path) -> None:
    path = copied / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [7, 9], "temperature": 0.6, "top_k": 20, "top_p": 0.95}))
    info = read_model_info(copied, spec_for(copied, 1, 1))
    assert info.eos_token_ids == (7, 9)
    assert info.default_sampling == SamplingParams(temperature=0.6, top_k=20, top_p=0.95)
    path.write_text(json.dumps({"do_sample": False, "temperature": 0.6}))
    assert read_model_info(copied, spec_for(copied, 1, 1)).default_sampling.greedy
    path.write_text(json.dumps({"top_p": 1.5}))
    with pytest.raises(ConfigError, match=r"top_p must be above 0 and at most 1, got 1\.5"):
        read_model_info(copied, spec_for(copied, 1, 1))
    path.unlink()
    assert read_model_info(copied, spec_for(copied, 1, 1)).eos_token_ids == (1,)


def test_context_limit(copied: Path) -> None:
    def info(limit: int) -> int:
        return read_model_info(
            copied, spec_for(copied, 1, 1, engine=EngineSpec(max_context_tokens=limit))
        ).max_context_tokens

    assert (info(0), info(100)) == (256, 100)
    with pytest.raises(
        ConfigError, match="max_context_tokens = 257 is above the model's max_position_embeddings = 256"
    ):
        info(257)


def test_pages_by_default_and_by_demand(copied: Path) -> None:
    runner = load(copied)
    per_context = 256 // PAGE_SIZE
    assert per_context <= runner.suggested_pages() <= 2 * 64 * per_context
    assert load(copied, engine=EngineSpec(total_pages=77)).suggested_pages() == 77
    with pytest.raises(ConfigError, match=r"total_pages = .* does not fit"):
        runner.allocate(10**13)


def test_pages_take_memory_only_when_they_are_written(copied: Path) -> None:
    """Two idle replicas on a laptop must not hold the caches that they are allowed."""
    runner = load(copied)
    size = 256 << 20
    before = psutil.Process().memory_info().rss
    runner.allocate(size // runner.info.kv_bytes_per_page)
    assert psutil.Process().memory_info().rss - before < size // 4
