"""The Llama decoder: one rank's slice of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.kv_write import kv_write
from ...kernels.paged_attention import paged_attention
from ...kernels.rms_norm import add_rms_norm, rms_norm
from ...kernels.rotary import rotary_tables, rotate
from ...kernels.swiglu import swiglu
from ..parallel.communicator import Communicator
from .config import ModelConfig
from .inputs import LayerCache, StepInputs
from .linear import Linear
from .rope import inverse_frequencies
from .split import Split
from .weights import WeightReader


class LlamaLayer:
    """One decoder layer. Heads and MLP columns are this rank's; the two outputs are summed over the stage's ranks."""

    def __init__(self, config: ModelConfig, split: Split, comm: Communicator, weights: WeightReader) -> None:
        self.comm = comm
        self.eps = config.norm_eps
        self.head_dim = config.head_dim
        self.heads, self.kv_heads = split.heads.size, split.kv_heads.size
        self.scale = 1.0 / math.sqrt(config.head_dim)
        hidden, width = config.hidden_size, config.intermediate_size
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        query_part, key_part = split.heads.scaled(config.head_dim), split.kv_heads.scaled(config.head_dim)
        attention, mlp = weights.inside("self_attn."), weights.inside("mlp.")

        self.input_norm = weights.vector("input_layernorm.weight", hidden)
        self.qkv = attention.fused_rows(
            [("q_proj", queries, query_part), ("k_proj", keys, key_part), ("v_proj", keys, key_part)],
            hidden,
            config.attention_bias,
        )
        self.out = attention.columns("o_proj", hidden, queries, query_part, config.attention_bias)
        self.post_norm = weights.vector("post_attention_layernorm.weight", hidden)
        self.gate_up = mlp.fused_rows(
            [("gate_proj", width, split.columns), ("up_proj", width, split.columns)], hidden, config.mlp_bias
        )
        self.down = mlp.columns("down_proj", hidden, width, split.columns, config.mlp_bias)

    def forward(
        self, x: Tensor | None, residual: Tensor, rotary: tuple[Tensor, Tensor], cache: LayerCache, inputs: StepInputs
    ) -> Tensor:
        """Takes the last layer's output `x` and the residual stream, which it updates in place, both [tokens, hidden].

        Returns what is still to be added to the residual stream.
        """
        if x is None:
            normed = rms_norm(residual, self.input_norm, self.eps)
        else:
            normed = add_rms_norm(x, residual, self.input_norm, self.eps)
        attended = self.comm.all_reduce(self.out(self._attend(normed, rotary, cache, inputs)))
        normed = add_rms_norm(attended, residual, self.post_norm, self.eps)
        return self.comm.all_reduce(self.down(swiglu(self.gate_up(normed))))

    def _attend(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: LayerCache, inputs: StepInputs) -> Tensor:
        heads, kv_heads = self.heads, self.kv_heads
        qkv = self.qkv(x).view(-1, heads + 2 * kv_heads, self.head_dim)
        turned = rotate(qkv[:, : heads + kv_heads], *rotary)
        query, key, value = turned[:, :heads], turned[:, heads:], qkv[:, heads + kv_heads :]
        kv_write(key, value, *cache, inputs.slots)
        return paged_attention(query, *cache, inputs.attention, self.scale)


class LlamaModel:
    """The layers of one stage, with the embedding on the first and norm and logits on the last."""

    def __init__(self, config: ModelConfig, split: Split, comm: Communicator, weights: WeightReader) -> None:
        self.config = config
        self.split = split
        self.comm = comm
        self.dtype = weights.dtype
        place = comm.place
        hidden, vocab = config.hidden_size, config.vocab_size
        frequencies = inverse_frequencies(config.rope, config.head_dim).to(weights.device)
        self.rotary = rotary_tables(frequencies, config.max_context, self.dtype)
        self.embedding: Tensor | None = None
        if place.is_first_stage or (config.tied_embeddings and place.is_last_stage):
            self.embedding = weights.rows("model.embed_tokens.weight", vocab, hidden, split.vocab)
        self.layers = [
            LlamaLayer(config, split, comm, weights.inside(f"model.layers.{index}."))
            for index in range(split.layers.start, split.layers.stop)
        ]
        self.head: Linear | None = None
        if place.is_last_stage:
            self.norm = weights.vector("model.norm.weight", hidden)
            head = self.embedding if config.tied_embeddings else None
            self.head = Linear(weights.rows("lm_head.weight", vocab, hidden, split.vocab) if head is None else head)
        if not place.is_first_stage:
            self.embedding = None

    def forward(self, inputs: StepInputs, caches: Sequence[LayerCache]) -> Tensor | None:
        """Runs this stage. The ranks of the last one get the normed hidden states of `inputs.wanted`, [wanted, hidden],
        when there are any; every other rank gets None."""
        place = self.comm.place
        if place.is_first_stage:
            residual = self._embed(inputs.token_ids)
        else:
            residual = self.comm.receive((inputs.tokens, self.config.hidden_size), self.dtype)
        cos, sin = (table.index_select(0, inputs.positions).unsqueeze(1) for table in self.rotary)
        x: Tensor | None = None
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer.forward(x, residual, (cos, sin), cache, inputs)
        assert x is not None, "a stage has at least one layer"
        if not place.is_last_stage:
            self.comm.send(residual.add_(x))
            return None
        if not inputs.wanted.shape[0]:
            return None
        x, residual = x.index_select(0, inputs.wanted), residual.index_select(0, inputs.wanted)
        return add_rms_norm(x, residual, self.norm, self.config.norm_eps)

    def logits(self, hidden: Tensor) -> Tensor | None:
        """Logits of hidden states as `forward` gives them: [rows, vocabulary] float32 on the sampling rank, None on the
        others of the last stage, which all have to call it alike."""
        assert self.head is not None, "the last stage has the head"
        logits = self.comm.gather(self.head(hidden))
        return None if logits is None else logits.to(torch.float32)

    def _embed(self, token_ids: Tensor) -> Tensor:
        assert self.embedding is not None, "the first stage has the embedding"
        part = self.split.vocab
        if part.size == self.config.vocab_size:
            return F.embedding(token_ids, self.embedding)
        local = token_ids - part.start
        foreign = (local < 0) | (local >= part.size)
        found = F.embedding(local.masked_fill_(foreign, 0), self.embedding).masked_fill_(foreign.unsqueeze(-1), 0)
        return self.comm.all_reduce(found)
