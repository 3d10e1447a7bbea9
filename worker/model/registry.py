"""How a checkpoint's configuration is read, and a rank's slice of it loaded, by its architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...core.errors import ConfigError
from ..parallel.communicator import Communicator
from .architectures import ARCHITECTURES
from .checkpoint import Checkpoint
from .config import NEUTRAL, ModelConfig, architecture_of
from .decoder import Decoder
from .fields import Fields, read_json
from .split import Split, split_model
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
    return config


def load_model(
    directory: Path,
    config: ModelConfig,
    comm: Communicator,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[float], None],
) -> Decoder[Any]:
    """Loads the slice of `comm.place`, telling the share that is done, 0 to 1. Raises ConfigError for a checkpoint
    that does not hold what its configuration promises."""
    split = split_model(config, comm.place)
    expected = _elements(config, split, comm)
    done = 0

    def on_read(elements: int) -> None:
        nonlocal done
        done += elements
        on_progress(min(done / expected, 1.0))

    on_progress(0.0)
    with Checkpoint(directory, on_read) as checkpoint:
        reader = WeightReader(checkpoint, dtype, device, first=comm.place.tp_rank == 0)
        model = ARCHITECTURES[config.architecture](config, split, comm, reader)
    on_progress(1.0)
    return model


def _elements(config: ModelConfig, split: Split, comm: Communicator) -> int:
    """About how many weights this rank reads: norms and biases are too small to count."""
    heads = 2 * split.heads.size + 2 * split.kv_heads.size
    mlp = 3 * (split.expert_columns.size or split.columns.size) * max(1, config.experts)
    layer = config.hidden_size * (heads * config.head_dim + mlp)
    embeddings = split.vocab.size * config.hidden_size * (comm.place.is_first_stage + comm.place.is_last_stage)
    if config.tied_embeddings and comm.place.pp == 1:
        embeddings //= 2
    return split.layers.size * layer + embeddings
