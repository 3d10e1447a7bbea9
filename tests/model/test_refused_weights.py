"""Checkpoints whose files hold something else than the model's weights are refused with file and tensor named."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rank_group import spec_for
from safetensors.torch import load_file, save_file
from tiny_llamas import edit_config, write_llama

from headway.core.errors import ConfigError
from headway.worker.execution.runner import Runner
from headway.worker.model.registry import load_model, read_config
from headway.worker.parallel.communicator import Communicator, alone
from headway.worker.parallel.tensor_group import SoloGroup
from headway.worker.parallel.topology import Topology

INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"


def load(path: Path, *, ignore_remote_code: bool = False) -> Runner:
    spec = spec_for(path, 1, 1, ignore_remote_code=ignore_remote_code)
    return Runner(spec, alone(), lambda share: None)


def refused(path: Path, *words: str) -> None:
    """The checkpoint is refused, in words that hold all of `words`."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint in one file that the test may spoil."""
    return Path(shutil.copytree(checkpoint("gqa-tied"), tmp_path / "model"))


@pytest.fixture(scope="module")
def sharded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("shards"), shard="100KB", num_key_value_heads=2)


@pytest.fixture
def sharded(sharded_once: Path, tmp_path: Path) -> Path:
    """A checkpoint in shards that the test may spoil."""
    return Path(shutil.copytree(sharded_once, tmp_path / "model"))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def edit_index(directory: Path, change: Callable[[dict[str, str]], object]) -> None:
    values = json.loads((directory / INDEX).read_text())
    change(values["weight_map"])
    (directory / INDEX).write_text(json.dumps(values))


def shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("model-*.safetensors"))


# What a checkpoint holds.


def test_missing_and_extra_tensors(copied: Path) -> None:
    file = copied / "model.safetensors"
    edit_tensors(file, lambda tensors: tensors.pop(UP))
    refused(copied, str(file), f"tensor {UP} is missing")
    edit_tensors(file, lambda tensors: tensors.update({UP: torch.zeros(96, 64), "model.visual": torch.zeros(2)}))
    refused(copied, str(file), "tensor model.visual has no place in LlamaForCausalLM")
    edit_tensors(file, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}))
    refused(copied, "nor have 1 more")


def test_layers_that_the_configuration_leaves_out(copied: Path) -> None:
    edit_config(copied, num_hidden_layers=3)
    refused(copied, "model.layers.3.", "has no place", "nor have 8 more")


def test_buffers_of_older_writers_are_no_harm(copied: Path) -> None:
    inv = torch.ones(8)
    edit_tensors(
        copied / "model.safetensors",
        lambda tensors: tensors.update({f"model.layers.{n}.self_attn.rotary_emb.inv_freq": inv + n for n in range(4)}),
    )
    load(copied)


def test_tied_head_that_was_saved_too(copied: Path) -> None:
    file = copied / "model.safetensors"
    edit_tensors(file, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    load(copied)
    edit_tensors(file, lambda tensors: tensors["lm_head.weight"].add_(0.01))
    refused(copied, str(file), "lm_head.weight differs from model.embed_tokens.weight", "tie_word_embeddings")
    edit_tensors(file, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(3, 64)}))
    refused(copied, "lm_head.weight has shape [3, 64]")


def test_wrong_shape_and_type_in_the_last_shard_are_told_before_a_weight_is_read(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = shards(sharded)[-1]
    name = next(iter(load_file(last)))
    monkeypatch.setattr("headway.worker.model.checkpoint.Checkpoint.read", None)
    edit_tensors(last, lambda tensors: tensors.update({name: torch.zeros(2, 3)}))
    refused(sharded, str(last), f"tensor {name} has shape [2, 3]")
    edit_tensors(last, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    refused(sharded, str(last), name)


def test_only_the_leader_looks_at_what_is_not_its_own(copied: Path) -> None:
    """A tensor of the last layer is missing: of two stages the leader and the second name it."""
    name = "model.layers.3.mlp.up_proj.weight"
    edit_tensors(copied / "model.safetensors", lambda tensors: tensors.pop(name))
    for rank in (0, 1):
        comm = Communicator(Topology(rank, 1, 2), SoloGroup(), torch.device("cpu"), None)
        with pytest.raises(ConfigError, match=re.escape(f"tensor {name} is missing")):
            load_model(copied, read_config(copied), comm, torch.float32, comm.device, lambda share: None)


# The index and the files that it names.


def other_file(name: str) -> Callable[[dict[str, str]], object]:
    return lambda weights: weights.update({"model.norm.weight": name})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../other.safetensors", "outside of"),
        ("/etc/passwd.safetensors", "outside of"),
        ("sub/model.safetensors", "outside of"),
        ("..", "no .safetensors file"),
        ("", "no .safetensors file"),
        ("pytorch_model.bin", "no .safetensors file"),
        ("gone.safetensors", "gone.safetensors does not exist, but model.safetensors.index.json names it"),
        ("x\0.safetensors", "damaged entry"),
        ("x\ud800.safetensors", "damaged entry"),
        ("x" * 300 + ".safetensors", "cannot be read"),
    ],
)
def test_names_in_the_index(sharded: Path, name: str, words: str) -> None:
    (sharded.parent / "other.safetensors").write_bytes(b"")
    edit_index(sharded, other_file(name))
    refused(sharded, str(sharded), words)


def test_index_and_files_that_disagree(sharded: Path) -> None:
    first, second = shards(sharded)[:2]
    mine = next(iter(load_file(first)))
    edit_index(sharded, lambda weights: weights.update({mine: second.name}))
    refused(sharded, str(second), f"does not hold tensor {mine}")
    edit_index(sharded, lambda weights: weights.update({mine: first.name, "model.ghost": first.name}))
    refused(sharded, str(first), "does not hold tensor model.ghost")
    edit_index(sharded, lambda weights: weights.pop("model.ghost"))
    edit_tensors(second, lambda tensors: tensors.update({mine: torch.zeros(1)}))
    refused(sharded, str(second), f"tensor {mine} is in {first.name}, too")
    for text in ("[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000, "\x00"):
        (sharded / INDEX).write_text(text)
        refused(sharded, INDEX)


def test_links_as_in_the_cache_of_the_hub(sharded: Path) -> None:
    """snapshots/REVISION/file leads to blobs/HASH outside of the directory; a pipe or a directory is no file."""
    blobs = sharded.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sharded.iterdir()):
        file.rename(blobs / str(number))
        file.symlink_to(Path("..") / "blobs" / str(number))
    load(sharded)
    file = shards(sharded)[0]
    target = file.resolve()
    target.unlink()
    refused(sharded, file.name, "does not exist")
    os.mkfifo(target)
    refused(sharded, file.name, "no regular file")
    target.unlink()
    target.mkdir()
    refused(sharded, file.name, "no regular file")


# Pickles and code.


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_never_opened(copied: Path, name: str) -> None:
    (copied / "model.safetensors").unlink()
    os.mkfifo(copied / name)  # whoever opens it waits for ever
    refused(copied, name, "is a pickle", "convert the checkpoint to safetensors")
    (copied / "pytorch_model.bin.index.json").write_text("{}")
    refused(copied, name, "is a pickle")


def test_pickles_beside_safetensors_are_left_alone(copied: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    load(copied)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_the_checkpoint(copied: Path, file: str) -> None:
    path = copied / file
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}))
    (copied / "modeling.py").write_text("raise SystemExit('it ran')")
    refused(copied, str(path), "auto_map", "never runs", "--ignore-remote-code")
    load(copied, ignore_remote_code=True)
    path.write_text(json.dumps(values | {"auto_map": {}}))
    load(copied)


def test_code_of_an_unknown_architecture(copied: Path) -> None:
    """The architecture is what is wrong: ignoring the code would not help."""
    edit_config(copied, architectures=["MineForCausalLM"], auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    refused(copied, "architecture MineForCausalLM is not supported")
