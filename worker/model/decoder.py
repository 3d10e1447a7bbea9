"""The decoder that all architectures share: embedding, layers, final norm, head; one rank's slice of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

import torch.nn.functional as F
from torch import Tensor

from ...kernels.vocab_embedding import vocab_embedding
from ..parallel.communicator import Communicator
from .attention import Step
from .config import Config
from .fields import Fields
from .inputs import LayerCache, StepInputs
from .layers import Layer
from .linear import Linear
from .norm import Norm, read_norm
from .rope import Rotary
from .split import Split
from .weights import WeightReader


class Decoder(ABC, Generic[Config]):
    """The layers of one stage, with the embedding on the first and norm and logits on the last.

    An architecture says how its configuration is read and what a layer is made of; where it departs from Llama
    elsewhere, it replaces `final_norm`, `scale_embedding` or `cap_logits`. Building reads weights, and no more.
    """

    def __init__(self, config: Config, split: Split, comm: Communicator, weights: WeightReader) -> None:
        self.config = config
        self.split = split
        self.sites = weights.sites
        self.comm = comm
        self.dtype = weights.dtype
        place = comm.place
        hidden, vocab = config.hidden_size, config.vocab_size
        indices = range(split.layers.start, split.layers.stop)
        kinds = [config.attention[index] for index in indices]
        self.windows = tuple(dict.fromkeys(kind.window for kind in kinds))
        self._rotary = {
            rope: Rotary(rope, config.max_context, self.dtype, weights.device)
            for rope in dict.fromkeys(kind.rope for kind in kinds)
        }
        self.embedding: Tensor | None = None
        if place.is_first_stage or (config.tied_embeddings and place.is_last_stage):
            self.embedding = weights.rows("model.embed_tokens.weight", vocab, hidden, split.vocab)
        self.layers = [self.layer(index, weights.inside(f"model.layers.{index}.")) for index in indices]
        self.head: Linear | None = None
        if place.is_last_stage:
            self.norm = self.final_norm(weights)
            head = self.embedding if config.tied_embeddings else None
            head = weights.rows("lm_head.weight", vocab, hidden, split.vocab) if head is None else head
            self.head = Linear(head, wide=True, how=weights.products)
        if not place.is_first_stage:
            self.embedding = None

    @staticmethod
    @abstractmethod
    def read_config(fields: Fields) -> Config:
        """The configuration in config.json. Raises ConfigError that names the field which cannot be honoured."""

    @abstractmethod
    def layer(self, index: int, weights: WeightReader) -> Layer:
        """The whole model's layer `index`, whose tensors are those of `weights`."""

    def final_norm(self, weights: WeightReader) -> Norm:
        """The norm before the head."""
        return read_norm(weights, "model.norm", self.config.hidden_size, self.config.norm_eps)

    def scale_embedding(self, x: Tensor) -> Tensor:
        """What the first layer gets for the embedding's rows [tokens, hidden], which may change in place."""
        return x

    def cap_logits(self, logits: Tensor) -> Tensor:
        """What the sampler gets for the head's output [rows, vocabulary] float32, which may change in place."""
        return logits

    def rotary(self, index: int) -> Rotary:
        """The rotary embedding of layer `index`; layers of one kind share it."""
        return self._rotary[self.config.attention[index].rope]

    def forward(self, inputs: StepInputs, caches: Sequence[LayerCache]) -> Tensor | None:
        """Runs this stage. Each rank of the last stage gets the normed hidden states of `inputs.wanted`,
        [wanted, hidden], when there are any; every other rank gets None."""
        place = self.comm.place
        if place.is_first_stage:
            residual = self.scale_embedding(self._embed(inputs.token_ids))
        else:
            residual = self.comm.receive((inputs.tokens, self.config.hidden_size), self.dtype)
        step = Step(inputs)
        x: Tensor | None = None
        last = len(self.layers) - 1 if place.is_last_stage else None
        for index, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            x, residual = layer.forward(x, residual, step, cache, inputs.wanted if index == last else None)
        assert x is not None, "a stage has at least one layer"
        if not place.is_last_stage:
            self.comm.send(residual.add_(x))
            return None
        return self.norm.add(x, residual) if inputs.wanted.shape[0] else None

    def logits(self, hidden: Tensor) -> Tensor | None:
        """[rows, hidden] to [rows, vocabulary] float32 on the sampling rank, None on the others of its stage. All
        of them have to call."""
        assert self.head is not None, "the last stage has the head"
        logits = self.comm.gather(self.head(hidden))
        return None if logits is None else self.cap_logits(logits.float())

    def _embed(self, token_ids: Tensor) -> Tensor:
        assert self.embedding is not None, "the first stage has the embedding"
        part = self.split.vocab
        if part.size == self.config.vocab_size:
            return F.embedding(token_ids, self.embedding)
        return self.comm.all_reduce(vocab_embedding(token_ids, self.embedding, part.start))
