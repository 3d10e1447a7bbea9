"""Whether a checkpoint holds exactly the tensors that its architecture reads, told from headers before any weight."""

from __future__ import annotations

import torch

from ...core.errors import ConfigError
from .checkpoint import Checkpoint
from .config import ModelConfig
from .sources import Recorder
from .split import Part

# Buffers that older writers saved, and that follow from the configuration.
HARMLESS = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SAMPLED_ROWS = 64


def check_manifest(checkpoint: Checkpoint, asked: Recorder, config: ModelConfig) -> None:
    """`asked` is what the whole model reads. Raises ConfigError, naming file and tensor, unless the checkpoint holds
    each of its tensors in shape and type, and no other."""
    shapes = asked.shapes
    for name, shape in shapes.items():
        checkpoint.check(name, shape, asked.types[name])
    extra = [name for name in checkpoint.names() if name not in shapes and not name.endswith(HARMLESS)]
    if config.tied_embeddings and HEAD in extra:
        _check_tied(checkpoint, shapes[EMBEDDING])
        extra.remove(HEAD)
    if config.quantization is not None:
        extra = [name for name in extra if not _empty_bias(checkpoint, name)]
    if extra:
        more = f", nor have {len(extra) - 1} more" if len(extra) > 1 else ""
        raise ConfigError(
            f"{checkpoint.file(extra[0])}: tensor {extra[0]} has no place in {config.architecture} as config.json "
            f"describes it{more}: the model would compute without what it holds"
        )


def _empty_bias(checkpoint: Checkpoint, name: str) -> bool:
    """Whether it is a bias of zeros: some quantizers write one for every product."""
    shape = checkpoint.shape(name)
    if not name.endswith(".bias") or shape is None or len(shape) != 1:
        return False
    bias = torch.empty(shape)
    checkpoint.read(name, shape, bias)
    return not bias.any()


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
