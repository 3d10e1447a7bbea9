"""Reads slices of tensors from the safetensors files of one checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...core.errors import ConfigError
from .safetensors_header import TensorEntry, read_header
from .split import Part
from .weight_files import find_weight_files

FLOATING = ("F32", "BF16", "F16")
EXACTLY = {torch.int8: ("I8",), torch.int32: ("I32",), torch.int64: ("I64",), torch.float8_e4m3fn: ("F8_E4M3",)}


class Checkpoint:
    """Open files of one checkpoint, a TensorSource. All headers are read and checked on construction."""

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError, naming file and tensor, for a file that is damaged or contradicts the index."""
        found = find_weight_files(directory)
        self.source = found.source
        self._where: dict[str, tuple[Path, TensorEntry]] = {}
        self._open: dict[Path, Any] = {}
        for file in found.files:
            for name, entry in read_header(file).items():
                if name in self._where:
                    raise ConfigError(f"{file}: tensor {name} is in {self._where[name][0].name}, too")
                self._where[name] = file, entry
        for name, file in found.placed.items():
            if name not in self._where or self._where[name][0] != file:
                raise ConfigError(f"{file} does not hold tensor {name}, but {found.source.name} says so")

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files."""
        self._open.clear()

    def holds(self, name: str) -> bool:
        """Whether tensor `name` is in one of the files."""
        return name in self._where

    def names(self) -> list[str]:
        """Every tensor that there is."""
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of tensor `name`; None when it is in none of the files."""
        return self._where[name][1].shape if name in self._where else None

    def file(self, name: str) -> str:
        """The file that holds the first tensor whose name begins with `name`."""
        found = (file for known, (file, _) in self._where.items() if known.startswith(name))
        return str(self._where[name][0] if name in self._where else next(found, self.source))

    def check(self, name: str, shape: tuple[int, ...], wanted: torch.dtype = torch.float32) -> Path:
        """The file of tensor `name`. Raises ConfigError when it is missing, of another shape, or of a type that it
        cannot be for `wanted`: a floating one has to be one of FLOATING, others as they are."""
        if name not in self._where:
            raise ConfigError(f"{self.source}: tensor {name} is missing from the checkpoint")
        file, entry = self._where[name]
        if entry.shape != shape:
            raise ConfigError(
                f"{file}: tensor {name} has shape {list(entry.shape)}, and config.json implies {list(shape)}"
            )
        kinds = EXACTLY.get(wanted, FLOATING)
        if entry.dtype not in kinds:
            due = f"not one of {', '.join(kinds)}" if len(kinds) > 1 else f"not {kinds[0]}"
            raise ConfigError(f"{file}: tensor {name} is of type {entry.dtype}, {due}")
        return file

    def read(self, name: str, shape: tuple[int, ...], out: Tensor, *, dim: int = 0, part: Part | None = None) -> None:
        """Tensor `name`, or its `part` along `dim`, into `out`, which has its shape and any device.

        `shape` is the whole tensor's, as the configuration implies it. Raises ConfigError as `check` does, and when the
        file cannot be read any more.
        """
        file = self.check(name, shape, out.dtype)
        ranges = [slice(None)] * len(shape)
        if part is not None:
            ranges[dim] = slice(part.start, part.stop)
        try:
            # A view of the mapped file: what is not in the slice is not read, and nothing is held twice.
            out.copy_(self._file(file).get_slice(name)[tuple(ranges)])
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{file}: tensor {name} cannot be read: {error}") from None

    def _file(self, file: Path) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(str(file), framework="pt", device="cpu")
        return self._open[file]
