"""Whether a checkpoint holds exactly the tensors that its architecture reads, told from headers before any weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...core.errors import ConfigError
from .checkpoint import Checkpoint
from .config import ModelConfig
from .split import Part

# Buffers that older writers saved, and that follow from the configuration.
HARMLESS = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SAMPLED_ROWS = 64


def check_manifest(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """`shapes` are those of all tensors of the whole model. Raises ConfigError, naming file and tensor, unless the
    checkpoint holds each of them in its shape and in a floating type, and no other."""
    for name, shape in shapes.items():
        checkpoint.check(name, shape)
    extra = [name for name in checkpoint.names() if name not in shapes and not name.endswith(HARMLESS)]
    if config.tied_embeddings and HEAD in extra:
        _check_tied(checkpoint, shapes[EMBEDDING])
        extra.remove(HEAD)
    if extra:
        more = f", nor have {len(extra) - 1} more" if len(extra) > 1 else ""
        raise ConfigError(
            f"{checkpoint.file(extra[0])}: tensor {extra[0]} has no place in {config.architecture} as config.json "
            f"describes it{more}: the model would compute without what it holds"
        )


def _check_tied(checkpoint: Checkpoint, shape: tuple[int, ...]) -> None:
    """A tied head that was saved all the same has to be the embedding: some rows are compared."""
    checkpoint.check(HEAD, shape)
    rows, columns = shape
    pair = torch.empty(2, 1, columns)
    for row in range(0, rows, -(-rows // SAMPLED_ROWS)):
        for name, out in zip((EMBEDDING, HEAD), pair, strict=True):
            checkpoint.read(name, shape, out, part=Part(row, row + 1))
        if not torch.equal(*pair):
            raise ConfigError(
                f"{checkpoint.file(HEAD)}: tensor {HEAD} differs from {EMBEDDING}, and config.json has them tied: "
                "set tie_word_embeddings to false there if the head is one of its own"
            )
