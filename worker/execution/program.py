"""A stage of a plain decoder as one call into C (kernels/native/program.h): the CPU's counterpart of a CUDA graph.

The call runs without Python's lock, sums over ranks included, and does with a step's tokens what `Decoder.forward` and
`Decoder.logits` do, by the same operations in the same order: to the last bit. Which models have a program is settled
when they are loaded (`why_not`), which steps go through it before each (`Program.takes`); all others go by the
operations one by one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels.native import LANES, native
from ...kernels.native.tensors import KINDS, native_takes, native_type, native_wide
from ...kernels.paged_attention import NativeRows
from ...kernels.rope_kv_write import NATIVE_HEAD_DIM
from ...kernels.swiglu import swiglu
from ..model.attention import Attention
from ..model.decoder import Decoder
from ..model.inputs import LayerCache, StepInputs
from ..model.layers import Layer, PreNormLayer
from ..model.linear import Linear
from ..model.mlp import GatedMlp
from ..model.norm import Norm
from .rows import Rows

log = logging.getLogger(__name__)

Outputs = tuple[Tensor | None, Tensor | None]
"""What `Decoder.forward` returns, and `Decoder.logits` of the wanted tokens that are sampled, where there are any: good
until the next step."""

SWITCH = "HEADWAY_STEP_PROGRAM"


def program_of(model: Decoder[Any], caches: Sequence[LayerCache]) -> Program | None:
    """The program of a model over its caches, where it has one; the log says why not."""
    if reason := why_not(model, caches):
        log.info("steps go operation by operation: %s", reason)
        return None
    log.info("a step is one call into C")
    return Program(model, caches)


def why_not(model: Decoder[Any], caches: Sequence[LayerCache]) -> str:
    """What keeps a model over these caches from being one call; empty where nothing does."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    if not native_type(model.comm.device, model.dtype):
        return f"{model.dtype} on {model.comm.device} does not go through the operations in C"
    kind = type(model)
    if kind.scale_embedding is not Decoder.scale_embedding or kind.cap_logits is not Decoder.cap_logits:
        return f"{kind.__name__} scales embeddings or caps logits"
    if model.comm.place.tp > 1 and model.comm.exchange is None:
        return "ranks do not share memory"
    if any(cache.narrow or not native_takes(*cache.tensors()) or cache.keys.dtype != model.dtype for cache in caches):
        return "a KV cache of another type than the model's"
    for layer in model.layers:
        if reason := _layer_why_not(layer):
            return reason
    if model.head is not None and not (model.head.packed and native_wide(model.norm.weight)):
        return "the head is not packed for the product in C"
    return ""


def _layer_why_not(layer: Layer) -> str:
    attention, mlp = layer.attention, layer.mlp
    if not isinstance(layer, PreNormLayer):
        return f"layers of the kind {type(layer).__name__}"
    if not isinstance(mlp, GatedMlp) or mlp.activation is not swiglu:
        return "an MLP that is no SwiGLU"
    if attention.softcap or attention.head_dim % LANES or attention.head_dim > NATIVE_HEAD_DIM:
        return "capped scores, or heads that are no multiple of a vector"
    norms = [layer.attention_norm, layer.mlp_norm, attention.query_norm, attention.key_norm]
    wide = [norm.weight for norm in norms if norm is not None] + [*attention.rotary.tables]
    products = [attention.qkv, attention.out, mlp.gate_up, mlp.down]
    wide += [product.bias for product in products if product.bias is not None]
    if not native_wide(*wide):
        return "norms, biases or rotary tables that are not float32"
    if not all(product.packed for product in products):
        return "products that are not packed for C"
    return ""


class Program:
    """The program of one rank's stage, over weights and caches that stay where they are for as long as it lives."""

    def __init__(self, model: Decoder[Any], caches: Sequence[LayerCache]) -> None:
        self._model = model
        self._caches = caches
        self._room = torch.empty((0, model.config.vocab_size), dtype=torch.float32)
        config, comm, first = model.config, model.comm, model.layers[0]
        attention: Attention = first.attention
        pages, page_size, _, _ = caches[0].keys.shape
        self._program = native.program(
            KINDS[model.dtype], config.hidden_size, attention.heads, attention.kv_heads, attention.head_dim,
            _mlp(first).down.inputs, pages, page_size, len(model.layers), comm.exchange,
        )  # fmt: skip
        for layer, cache in zip(model.layers, caches, strict=True):
            assert isinstance(layer, PreNormLayer)
            native.add_layer(self._program, *_layer_arguments(layer, cache))
        if model.embedding is not None:
            part = model.split.vocab
            native.set_embedding(self._program, model.embedding.data_ptr(), part.start, part.size, config.vocab_size)
        if model.head is not None:
            native.set_head(self._program, model.norm.weight.data_ptr(), model.norm.eps, _matrix(model.head))

    def takes(self, inputs: StepInputs) -> bool:
        """Whether this step goes through the program: no row with an adapter, no token wanted twice."""
        adapted = inputs.segments is not None and bool(inputs.segments.now)
        return not adapted and inputs.wanted.shape[0] <= inputs.tokens

    def run(self, inputs: StepInputs, sampled: int) -> Outputs:
        """Raises IndexError for pages, slots or tokens that are none, before anything is written; RankLost."""
        rows = next(iter(inputs.attention.values())).native
        assert isinstance(rows, NativeRows), "planned for the operations in C"

        def call(stream: int, hidden: int, logits: int) -> int:
            return native.run_program(
                self._program, inputs.token_ids.data_ptr(), inputs.positions.data_ptr(), inputs.slots.data_ptr(),
                rows.tables.data_ptr(), rows.rows.data_ptr(), inputs.wanted.data_ptr(), inputs.tokens,
                rows.rows.shape[0], rows.tables.shape[1], inputs.wanted.shape[0], stream, hidden, logits, sampled,
            )  # fmt: skip

        return self._run(call, inputs.tokens, inputs.wanted.shape[0], sampled)

    def run_rows(self, rows: Rows) -> Outputs:
        """The step of `rows.work`, for which nobody wants anything but the next tokens, and no row has an adapter: its
        inputs are made in C. Raises as `run`."""
        work, tokens, tables = rows.work, rows.tokens, rows.tables
        sampled = int(np.count_nonzero(work.sample))
        # A stage without a program takes tokens in this order, too.
        order = work.ordered() if self._model.comm.place.pp > 1 else None

        def call(stream: int, hidden: int, logits: int) -> int:
            return native.run_rows(
                self._program, tokens.ctypes.data, tables.ctypes.data, len(tokens), tokens.shape[1], tables.shape[1],
                work.row.ctypes.data, work.computed.ctypes.data, work.count.ctypes.data, work.sample.ctypes.data,
                0 if order is None else order.ctypes.data, len(work.row), stream, hidden, logits,
            )  # fmt: skip

        return self._run(call, int(work.count.sum()), sampled, sampled)

    def _run(self, call: Callable[[int, int, int], int], tokens: int, wanted: int, sampled: int) -> Outputs:
        comm, hidden_size, dtype = self._model.comm, self._model.config.hidden_size, self._model.dtype
        place = comm.place
        stream = hidden = logits = None
        if not place.is_first_stage:
            stream = comm.receive((tokens, hidden_size), dtype)
        elif not place.is_last_stage:
            stream = torch.empty((tokens, hidden_size), dtype=dtype)
        if place.is_last_stage and wanted:
            hidden = torch.empty((wanted, hidden_size), dtype=dtype)
            if place.is_sampler and sampled:
                logits = self._logits(sampled)
        comm.expect_all(call(_address(stream), _address(hidden), _address(logits)))
        if not place.is_last_stage:
            assert stream is not None
            comm.send(stream)
        return hidden, logits

    def _logits(self, rows: int) -> Tensor:
        """Memory for them, the same in each step: the kernel gives fresh memory page by page, as it is touched."""
        if self._room.shape[0] < rows:
            self._room = torch.empty((rows, self._model.config.vocab_size), dtype=torch.float32)
        return self._room[:rows]


def _layer_arguments(layer: PreNormLayer, cache: LayerCache) -> tuple[Any, ...]:
    attention, mlp = layer.attention, _mlp(layer)
    query_norm, key_norm = attention.query_norm, attention.key_norm
    cos, sin = attention.rotary.tables
    return (
        *_norm(layer.attention_norm), *_norm(layer.mlp_norm), _matrix(attention.qkv), _matrix(attention.out),
        _matrix(mlp.gate_up), _matrix(mlp.down), _address(query_norm.weight if query_norm else None),
        _address(key_norm.weight if key_norm else None), query_norm.eps if query_norm else 0.0,
        cos.data_ptr(), sin.data_ptr(), *cos.shape,
        cache.keys.data_ptr(), cache.values.data_ptr(), attention.window or 0, attention.scale,
    )  # fmt: skip


def _mlp(layer: Layer) -> GatedMlp:
    assert isinstance(layer.mlp, GatedMlp), "of a model that has a program"
    return layer.mlp


def _norm(norm: Norm) -> tuple[int, float]:
    return norm.weight.data_ptr(), norm.eps


def _matrix(linear: Linear) -> tuple[int, int, int, int, int]:
    packed = linear.packed
    assert packed is not None
    return packed.data.data_ptr(), _address(packed.scales), _address(linear.bias), linear.inputs, linear.outputs


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
