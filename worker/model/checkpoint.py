"""Reads slices of tensors from safetensors files: one file, or shards with an index."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...core.errors import ConfigError
from .fields import read_json
from .split import Part

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATING = ("F32", "BF16", "F16")
HEADER_LIMIT = 100_000_000


def weight_files(directory: Path) -> list[Path]:
    """The checkpoint's files, sorted. Raises ConfigError when there are none or one is missing."""
    index = directory / INDEX
    if not index.exists():
        single = directory / SINGLE
        if not single.exists():
            raise ConfigError(f"{directory} has neither {SINGLE} nor {INDEX}")
        return [single]
    weights = read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise ConfigError(f"{index}: weight_map must be an object of tensor names and file names")
    files = sorted({directory / name for name in weights.values()})
    for file in files:
        if file.parent != directory:
            raise ConfigError(f"{index}: weight_map names {file.name!r} outside of {directory}")
        if not file.exists():
            raise ConfigError(f"{file} does not exist, but {index.name} names it")
    return files


def read_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file. Raises ConfigError when it is damaged or the file is cut short."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise ConfigError(f"{file} is no safetensors file: its header would be {length} bytes long")
            header = json.loads(stream.read(length))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise ConfigError(f"{file} is no safetensors file: its header is no object")
    try:
        needed = (
            8
            + length
            + max((entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"), default=0)
        )
    except (KeyError, IndexError, TypeError):
        raise ConfigError(f"{file}: an entry of the header has no data_offsets") from None
    if size < needed:
        raise ConfigError(f"{file} is cut short: {size} bytes, and its header promises {needed}")
    return header


class Checkpoint:
    """Open files of one checkpoint, a TensorSource."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for file in weight_files(directory):
            for name in read_header(file):
                if name != "__metadata__":
                    self._where[name] = file

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files; tensors read so far stay valid."""
        self._open.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def read(self, name: str, shape: tuple[int, ...], out: Tensor, *, dim: int = 0, part: Part | None = None) -> None:
        """Tensor `name`, or its `part` along `dim`, into `out`, which has its shape and any type and device.

        `shape` is the whole tensor's, as the configuration implies it. Raises ConfigError, naming file and tensor,
        when it is missing, of another shape, of no floating type, or damaged.
        """
        file = self._where.get(name)
        if file is None:
            raise ConfigError(f"{self.directory}: tensor {name} is missing from the checkpoint")
        try:
            view = self._file(file).get_slice(name)
            found, kind = tuple(view.get_shape()), view.get_dtype()
            if found != shape:
                raise ConfigError(
                    f"{file}: tensor {name} has shape {list(found)}, and config.json implies {list(shape)}"
                )
            if kind not in FLOATING:
                raise ConfigError(f"{file}: tensor {name} is of type {kind}, not one of {', '.join(FLOATING)}")
            ranges = [slice(None)] * len(shape)
            if part is not None:
                ranges[dim] = slice(part.start, part.stop)
            # A view of the mapped file: what is not in the slice is not read, and nothing is held twice.
            out.copy_(view[tuple(ranges)])
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{file}: tensor {name} cannot be read: {error}") from None

    def _file(self, file: Path) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(str(file), framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{file} cannot be read: {error}") from None
        return self._open[file]
