"""Whether a request's bits are to be the same in any batch, and however its prompt is cut."""

from __future__ import annotations

import torch

from ...core.errors import ConfigError
from ...core.specs import GroupSpec
from ...kernels.native import LANES
from ...kernels.native.tensors import native_type
from ..model.config import ModelConfig
from .kv_cache import choose_kv_dtype


def is_batch_invariant(spec: GroupSpec, config: ModelConfig, dtype: torch.dtype) -> bool:
    """What the engine's `batch_invariant` comes to. "auto" is on where it costs nothing: on CPU, where all products and
    attention are the operations in C, each sum of which has one order. Raises ConfigError where it is asked for and
    there is no way to have it."""
    engine = spec.engine
    if config.quantization is not None:
        if engine.batch_invariant == "on":
            raise ConfigError("batch_invariant = on is not supported with quantized weights: serve it with off")
        return False
    if engine.batch_invariant != "auto":
        return engine.batch_invariant == "on"
    in_c = native_type(torch.device(spec.device), dtype) and choose_kv_dtype(engine.kv_dtype, dtype) == dtype
    return in_c and config.head_dim % LANES == 0 and not getattr(config, "scores_cap", 0.0)
