"""Which files hold a checkpoint's weights. Pickles never do."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...core.errors import ConfigError
from .fields import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class WeightFiles(msgspec.Struct, frozen=True):
    """The files of one checkpoint, sorted. `source` is the file that a missing tensor is missing from.

    `placed` is the index's word on which file holds which tensor; empty without an index.
    """

    source: Path
    files: tuple[Path, ...]
    placed: dict[str, Path] = {}


def find_weight_files(directory: Path) -> WeightFiles:
    """The checkpoint's weight files; where there are both, the single one goes before shards, as in transformers.

    A file may be a symbolic link to anywhere, as in the Hugging Face cache: whoever made the directory made the link.
    Names in the index come from the checkpoint's author and cannot leave the directory. Raises ConfigError when there
    are no weights, when they are pickles only, and when the index is damaged or names a file that is not there.
    """
    single, index = directory / SINGLE, directory / INDEX
    if single.exists():
        _check_file(single, "")
        return WeightFiles(single, (single,))
    if index.exists():
        placed = _read_index(index)
        return WeightFiles(index, tuple(sorted(set(placed.values()))), placed)
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    if pickles:
        raise ConfigError(
            f"{directory / pickles[0]} is a pickle, which can run code when it is read, and is never opened here: "
            f"convert the checkpoint to safetensors, for example with transformers' save_pretrained"
        )
    raise ConfigError(f"{directory} has neither {SINGLE} nor {INDEX}")


def _read_index(index: Path) -> dict[str, Path]:
    directory = index.parent
    weights = read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        raise ConfigError(f"{index}: weight_map must be an object of tensor names and file names")
    for tensor, name in weights.items():
        if not tensor.isprintable() or not name.isprintable():
            raise ConfigError(f"{index}: weight_map has the damaged entry {tensor!r}: {name!r}")
        if Path(name).name != name:
            raise ConfigError(f"{index}: weight_map[{tensor!r}] names {name!r}, outside of {directory}")
        if not name.endswith(".safetensors"):
            raise ConfigError(f"{index}: weight_map[{tensor!r}] names {name!r}, which is no .safetensors file")
    placed = {tensor: directory / name for tensor, name in weights.items()}
    for file in sorted(set(placed.values())):
        _check_file(file, f", but {index.name} names it")
    return placed


def _check_file(file: Path, context: str) -> None:
    try:
        found = file.exists()
    except OSError as error:  # a name too long
        raise ConfigError(f"{file} cannot be read: {error}") from None
    if not found:
        raise ConfigError(f"{file} does not exist{context}")
    if not file.is_file():
        raise ConfigError(f"{file} is no regular file{context}")
