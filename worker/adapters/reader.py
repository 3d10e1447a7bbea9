"""Reads one rank's part of an adapter's matrices from PEFT's safetensors file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...core.errors import ConfigError
from ...kernels.grouped_lora import LoraPiece, pack_down
from ..model.checkpoint import FLOATING
from ..model.safetensors_header import TensorEntry, read_header
from .config import ALL_LINEAR, CONFIG, AdapterConfig, check_directory, is_meant, read_adapter_config
from .revision import adapter_revision
from .sites import Projection, Site, layer_of

_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

Packed = tuple[Tensor, list[LoraPiece]]
"""An adapter at one site: down [inputs, ranks] and its pieces, scales multiplied in."""


class HostAdapter(NamedTuple):
    """An adapter in host memory: for each of the rank's sites what it adds there, None where it adds nothing.

    `revision` is the digest of its files, `rank` its highest rank, in the whole model.
    """

    revision: str
    rank: int
    packed: list[Packed | None]


class _Matrices(NamedTuple):
    """The shapes of one module's matrices, as the file has them."""

    down: tuple[int, ...]
    up: tuple[int, ...]


def read_adapter(directory: Path, sites: Sequence[Site], layers: int, max_rank: int, dtype: torch.dtype) -> HostAdapter:
    """The part of the adapter for `sites`, as `dtype`, for a model of `layers` layers in all.

    Raises ConfigError, naming file and field or tensor, for an adapter that does not fit the model or asks for what is
    not supported. Of the layers of other ranks only names are checked: those ranks check the rest.
    """
    revision = adapter_revision(directory)
    config = read_adapter_config(directory)
    reader = _Reader(check_directory(directory), config, sites, layers, max_rank)
    try:
        with safe_open(str(reader.file), framework="pt", device="cpu") as tensors:
            packed = [reader.pack(site, tensors, dtype) for site in sites]
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{reader.file} cannot be read: {error}") from None
    return HostAdapter(revision, reader.highest_rank, packed)


class _Reader:
    """Knows what the file holds; checked against the model on construction."""

    def __init__(self, file: Path, config: AdapterConfig, sites: Sequence[Site], layers: int, max_rank: int) -> None:
        self.file = file
        self._config = config
        self._own = {projection.module: (projection, site) for site in sites for projection in site.projections}
        self._kinds = {layer_of(module)[1] for module in self._own}
        self._own_layers = {layer_of(module)[0] for module in self._own}
        self._layers = layers
        self._found = self._modules(read_header(file))
        ranks = {module: matrices.down[0] for module, matrices in self._found.items()}
        self.highest_rank = max(ranks.values())
        for module, rank in ranks.items():
            if rank > max_rank:
                raise ConfigError(f"{file}: {module} has rank {rank}, above max_lora_rank = {max_rank}")
        self._check_targets()
        for module, (projection, site) in self._own.items():
            if module in self._found:
                self._check_shapes(projection, site.inputs)
            elif config.wants(module, layer_of(module)[0]):
                raise ConfigError(f"{file}: tensor {_name(module, 'A')} is missing")

    def pack(self, site: Site, tensors: Any, dtype: torch.dtype) -> Packed | None:
        """What the adapter adds at a site."""
        downs: list[Tensor] = []
        pieces: list[LoraPiece] = []
        start = first = 0
        for projection in site.projections:
            stop = start + projection.part.size
            if projection.module in self._found:
                down = self._read(tensors, projection.module, "A", 1, site.input_part.start, site.input_part.stop)
                up = self._read(tensors, projection.module, "B", 0, projection.part.start, projection.part.stop)
                last = first + down.shape[0]
                up = up.float() * self._config.scale_of(projection.module)
                down = self._finite(down.to(dtype), projection.module, "A")
                up = self._finite(up.to(dtype), projection.module, "B")
                pieces.append(LoraPiece(start, stop, first, last, up.t().contiguous()))
                downs.append(down)
                first = last
            start = stop
        return (pack_down(torch.cat(downs).t()), pieces) if pieces else None

    def _read(self, tensors: Any, module: str, letter: str, dim: int, start: int, stop: int) -> Tensor:
        view = tensors.get_slice(_name(module, letter))
        if view.get_dtype() not in FLOATING:
            raise ConfigError(
                f"{self.file}: tensor {_name(module, letter)} is of type {view.get_dtype()}, "
                f"not one of {', '.join(FLOATING)}"
            )
        # A copy: the slice may still be a view of the mapped file.
        part: Tensor = view[(slice(None),) * dim + (slice(start, stop),)].clone()
        return part

    def _finite(self, part: Tensor, module: str, letter: str) -> Tensor:
        # Every answer of such an adapter would end in an error; and float16 is narrower than what files hold.
        if not part.isfinite().all():
            kind = str(part.dtype).removeprefix("torch.")
            raise ConfigError(f"{self.file}: tensor {_name(module, letter)} has values that are not finite in {kind}")
        return part

    def _modules(self, header: dict[str, TensorEntry]) -> dict[str, _Matrices]:
        """The modules that have both matrices. Raises ConfigError for any other tensor."""
        shapes: dict[tuple[str, str], tuple[int, ...]] = {}
        for name, entry in header.items():
            match = _TENSOR.fullmatch(name)
            if match is None or not self._is_adaptable(match[1]):
                raise ConfigError(f"{self.file}: tensor {name} is not supported; {self._supported()}")
            if len(entry.shape) != 2 or min(entry.shape) < 1:
                raise ConfigError(f"{self.file}: tensor {name} has shape {list(entry.shape)}, and a matrix is due")
            shapes[match[1], match[2]] = entry.shape
        for module, letter in list(shapes):
            other = "B" if letter == "A" else "A"
            if (module, other) not in shapes:
                raise ConfigError(f"{self.file}: tensor {_name(module, other)} is missing")
        if not shapes:
            raise ConfigError(f"{self.file} holds no adapter's tensors")
        return {module: _Matrices(shapes[module, "A"], shapes[module, "B"]) for module, _ in shapes}

    def _is_adaptable(self, module: str) -> bool:
        """Whether the model has it; of other ranks' layers, whether they could."""
        layer, kind = layer_of(module)
        if layer in self._own_layers:
            return module in self._own
        return kind in self._kinds and layer < self._layers

    def _check_targets(self) -> None:
        """Raises ConfigError for a target that no module of the model has."""
        for target in self._config.targets or ():
            layer, kind = layer_of("." + target.removeprefix("^"))  # the dot, so that "layers.3." is found too
            known = any(is_meant(kind.removeprefix("."), module) for module in self._kinds)
            if target != ALL_LINEAR and not (known and layer < self._layers):
                raise ConfigError(
                    f"{self.file.parent / CONFIG}: target_modules has {target!r}, which is not supported; "
                    f"{self._supported()}"
                )

    def _check_shapes(self, projection: Projection, inputs: int) -> None:
        module, found = projection.module, self._found[projection.module]
        rank = self._config.rank_of(module)
        for letter, shape, due in (("A", found.down, (rank, inputs)), ("B", found.up, (projection.outputs, rank))):
            if shape != due:
                raise ConfigError(
                    f"{self.file}: tensor {_name(module, letter)} has shape {list(shape)}; "
                    f"the model and {CONFIG} imply {list(due)}"
                )

    def _supported(self) -> str:
        ends = sorted({kind.rsplit(".", 1)[1] for kind in self._kinds})
        return f"adapters can change {', '.join(ends)} in layers 0 to {self._layers - 1}"


def _name(module: str, letter: str) -> str:
    return f"base_model.model.{module}.lora_{letter}.weight"
