"""Which class runs which architecture, and how a rank's slice of it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ..parallel.communicator import Communicator
from .checkpoint import Checkpoint
from .config import ModelConfig
from .inputs import LayerCache, StepInputs
from .llama import LlamaModel
from .split import Split, split_model
from .weights import WeightReader


class Model(Protocol):
    """What the execution asks of a loaded model."""

    split: Split

    def forward(self, inputs: StepInputs, caches: Sequence[LayerCache]) -> Tensor | None:
        """Normed hidden states of the wanted tokens on the ranks of the last stage, [wanted, hidden]; None elsewhere,
        and when none is wanted."""
        ...

    def logits(self, hidden: Tensor) -> Tensor | None:
        """Logits of such hidden states on the sampling rank, [rows, vocabulary] float32; None on the others of the last
        stage, which all have to call it alike."""
        ...


ARCHITECTURES: dict[str, Callable[[ModelConfig, Split, Communicator, WeightReader], Model]] = {
    "LlamaForCausalLM": LlamaModel,
}


def check_architecture(config: ModelConfig, directory: Path) -> None:
    """Raises ConfigError when nobody here can run it."""
    if config.architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(
            f"{directory / 'config.json'}: architecture {config.architecture} is not supported; these are: {known}"
        )


def load_model(
    directory: Path,
    config: ModelConfig,
    comm: Communicator,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[float], None],
) -> Model:
    """Loads the slice of `comm.place`, telling the share that is done, 0 to 1. Raises ConfigError for a checkpoint
    that does not hold what its configuration promises."""
    check_architecture(config, directory)
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
    layer = config.hidden_size * (heads * config.head_dim + 3 * split.columns.size)
    embeddings = split.vocab.size * config.hidden_size * (comm.place.is_first_stage + comm.place.is_last_stage)
    if config.tied_embeddings and comm.place.pp == 1:
        embeddings //= 2
    return split.layers.size * layer + embeddings
