"""How a checkpoint's configuration is read, and a rank's slice of it loaded, by its architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...core.errors import ConfigError
from ..parallel.communicator import Communicator, alone
from .architectures import ARCHITECTURES
from .checkpoint import Checkpoint
from .config import NEUTRAL, ModelConfig, architecture_of
from .decoder import Decoder
from .fields import Fields, read_json
from .linear import PLAIN, Products
from .manifest import check_manifest
from .quantization import FIELD, Layout
from .random_weights import RandomWeights
from .sources import Counted, Recorder, TensorSource
from .split import split_model
from .weights import WeightReader


def read_config(directory: Path) -> ModelConfig:
    """The shape of the checkpoint in `directory`. Raises ConfigError that names the field which cannot be."""
    path = directory / "config.json"
    fields = Fields(path, read_json(path))
    name = architecture_of(fields)
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(f"{path}: architecture {name} is not supported; these are: {known}")
    config: ModelConfig = ARCHITECTURES[name].read_config(fields)
    fields.refuse_unused(NEUTRAL)
    if config.quantization is not None and config.experts and config.quantization.layout != Layout.BLOCKS:
        raise fields.refuse(FIELD, f"is not supported with the experts of {name}, but for fp8 in blocks")
    return config


def load_model(
    directory: Path,
    config: ModelConfig,
    comm: Communicator,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[float], None],
    *,
    load_format: str = "auto",
    products: Products = PLAIN,
) -> Decoder[Any]:
    """Loads the slice of `comm.place`, telling the share that is done, 0 to 1. `load_format` is GroupSpec's,
    `products` WeightReader's.

    Raises ConfigError for a checkpoint that does not hold what its configuration promises: the leader looks through
    all headers for that before it reads its first weight.
    """
    on_progress(0.0)
    if load_format == "dummy":
        if config.quantization is not None:
            raise ConfigError(
                f"{directory / 'config.json'}: {FIELD} with load_format dummy is not supported: random weights are not "
                "quantized"
            )
        model = _load(config, comm, RandomWeights(), dtype, device, on_progress, products)
    else:
        with Checkpoint(directory) as checkpoint:
            if comm.place.rank == 0:
                check_manifest(checkpoint, record(config, alone("meta"), checkpoint), config)
            model = _load(config, comm, checkpoint, dtype, device, on_progress, products)
    on_progress(1.0)
    return model


def _load(
    config: ModelConfig,
    comm: Communicator,
    source: TensorSource,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[float], None],
    products: Products,
) -> Decoder[Any]:
    expected = record(config, comm, source).elements
    return _build(config, comm, Counted(source, expected, on_progress), dtype, device, products)


def record(config: ModelConfig, comm: Communicator, source: TensorSource) -> Recorder:
    """What the rank of `comm` reads of `source`. The architecture itself is asked: it is built on torch's meta device,
    which has shapes and no memory."""
    recorder = Recorder(source)
    _build(config, comm, recorder, torch.float32, torch.device("meta"))
    return recorder


def _build(
    config: ModelConfig,
    comm: Communicator,
    source: TensorSource,
    dtype: torch.dtype,
    device: torch.device,
    products: Products = PLAIN,
) -> Decoder[Any]:
    first = comm.place.tp_rank == 0
    reader = WeightReader(source, dtype, device, first, quantization=config.quantization)
    reader.products = products
    return ARCHITECTURES[config.architecture](config, split_model(config, comm.place), comm, reader)
