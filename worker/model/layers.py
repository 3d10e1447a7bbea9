"""The two ways in which decoder layers put attention, MLP and norms together.

Between layers travel the residual stream, and what the last layer has still to add to it: adding belongs to the norm
that follows, which does both in one pass.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..parallel.communicator import Communicator
from .attention import Attention, Step
from .inputs import LayerCache
from .mlp import Mlp
from .norm import Norm

Stream = tuple[Tensor, Tensor]  # what is still to be added, and the residual stream, each [tokens, hidden]


class Layer(Protocol):
    """What a decoder asks of its layers. `attention` and `mlp` hold the linear projections."""

    attention: Attention
    mlp: Mlp

    def forward(
        self, x: Tensor | None, residual: Tensor, step: Step, cache: LayerCache, wanted: Tensor | None = None
    ) -> Stream:
        """Takes what is still to be added to the residual stream and the stream, which it may change in place.

        `wanted` are the tokens ([wanted] int64) that anybody will look at after this layer, all by default: only these
        come back, in this order, though all of them leave their keys and values in the cache.
        """
        ...


class PreNormLayer:
    """A norm before attention and one before the MLP (Llama)."""

    def __init__(
        self, comm: Communicator, attention_norm: Norm, attention: Attention, mlp_norm: Norm, mlp: Mlp
    ) -> None:
        self.comm = comm
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp

    def forward(
        self, x: Tensor | None, residual: Tensor, step: Step, cache: LayerCache, wanted: Tensor | None = None
    ) -> Stream:
        attended = self.attention.attend(self.attention_norm.add(x, residual), step, cache)
        if wanted is not None:
            attended, residual = attended.index_select(0, wanted), residual.index_select(0, wanted)
            step.inputs.narrow()
            if not wanted.shape[0]:
                return residual, residual
        x = self.comm.all_reduce(self.attention.out(attended))
        return self.comm.all_reduce(self.mlp(self.mlp_norm.add(x, residual))), residual


class SandwichLayer:
    """Norms before attention and MLP, and after them, ahead of the addition (Gemma 2)."""

    def __init__(
        self,
        comm: Communicator,
        attention_norm: Norm,
        attention: Attention,
        attended_norm: Norm,
        mlp_norm: Norm,
        mlp: Mlp,
        output_norm: Norm,
    ) -> None:
        self.comm = comm
        self.attention_norm = attention_norm
        self.attention = attention
        self.attended_norm = attended_norm
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self.output_norm = output_norm

    def forward(
        self, x: Tensor | None, residual: Tensor, step: Step, cache: LayerCache, wanted: Tensor | None = None
    ) -> Stream:
        attended = self.attention.attend(self.attention_norm.add(x, residual), step, cache)
        if wanted is not None:
            attended, residual = attended.index_select(0, wanted), residual.index_select(0, wanted)
            step.inputs.narrow()
            if not wanted.shape[0]:
                return residual, residual
        x = self.attended_norm(self.comm.all_reduce(self.attention.out(attended)))
        x = self.comm.all_reduce(self.mlp(self.mlp_norm.add(x, residual)))
        return self.output_norm(x), residual
