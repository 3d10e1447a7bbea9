"""What a replica can say about its model before, and without, loading its weights."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from ...core.errors import ConfigError
from ...core.sampling import BOUNDS, SamplingParams
from ...core.specs import GroupSpec
from ...kernels.native.tensors import native_type
from ..model.config import ModelConfig
from ..model.fields import Fields, read_json
from ..model.registry import read_config
from ..model.remote_code import refuse_remote_code
from ..model.revision import model_revision
from ..model.split import split_model
from ..parallel.topology import Topology
from .dtype import dtype_name
from .info import ModelInfo
from .invariance import is_batch_invariant
from .kv_cache import choose_kv_dtype, kv_bytes_per_page, kv_variant


def choose_dtype(config: ModelConfig, device: str, wanted: str) -> torch.dtype:
    """The type to compute in (`dtype_name`)."""
    dtype = getattr(torch, dtype_name(config.dtype, device, wanted))
    assert isinstance(dtype, torch.dtype), "GroupSpec.check and read_config let only types through"
    return dtype


def read_model_info(path: Path, spec: GroupSpec, place: Topology | None = None) -> ModelInfo:
    """Describes the checkpoint in `path` for the group of `spec`, as rank `place` (the leader by default) holds it.

    Reads no weights. Raises ConfigError for a model that cannot be served so.
    """
    config = read_config(path)
    if not spec.ignore_remote_code:
        refuse_remote_code(path)
    split = split_model(config, place or Topology(0, spec.tp, spec.pp))
    dtype = choose_dtype(config, spec.device, spec.dtype)
    engine = spec.engine
    eos, defaults = _generation(path, config)
    served = config.served(_max_context(config, spec))
    name = str(dtype).removeprefix("torch.")
    variant = "/".join(
        filter(None, (served.variant(), name, kv_variant(engine.kv_dtype, dtype), _weights(spec, config, dtype)))
    )
    return ModelInfo(
        revision=model_revision(path, variant, spec.load_format),
        architecture=config.architecture,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        max_context_tokens=served.max_context,
        eos_token_ids=eos,
        default_sampling=defaults,
        kv_bytes_per_page=kv_bytes_per_page(config, split, engine.page_size, choose_kv_dtype(engine.kv_dtype, dtype)),
        page_size=engine.page_size,
        dtype=name,
        device=spec.device,
        batch_invariant=is_batch_invariant(spec, config, dtype),
    )


def _weights(spec: GroupSpec, config: ModelConfig, dtype: torch.dtype) -> str:
    """What the revision says of weights that are not kept as they are stored; empty for those that are."""
    if spec.engine.weight_dtype == "auto":
        return ""
    if config.quantization is not None:
        raise ConfigError("weight_dtype = int8 is for plain weights, and those of this checkpoint are quantized")
    if not native_type(torch.device(spec.device), dtype):
        raise ConfigError(f"weight_dtype = int8 needs the operations in C, which do not run here with {dtype}")
    return f"weights {spec.engine.weight_dtype}"


def _max_context(config: ModelConfig, spec: GroupSpec) -> int:
    wanted = spec.engine.max_context_tokens
    if wanted > config.max_context:
        raise ConfigError(
            f"max_context_tokens = {wanted} is above the model's max_position_embeddings = {config.max_context}"
        )
    return wanted or config.max_context


def _generation(path: Path, config: ModelConfig) -> tuple[tuple[int, ...], SamplingParams]:
    """End tokens and default sampling of generation_config.json, where there is one."""
    file = path / "generation_config.json"
    values = read_json(file) if file.exists() else {}
    fields = Fields(file, values)
    eos = fields.token_ids("eos_token_id") or config.eos_token_ids
    for token in eos:
        if token >= config.vocab_size:
            raise fields.refuse("eos_token_id", f"= {token} is not below vocab_size = {config.vocab_size}")
    return eos, _default_sampling(fields)


def _default_sampling(fields: Fields) -> SamplingParams:
    chosen = SamplingParams()
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
        value = fields.values.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not BOUNDS[name].holds(value):
            raise fields.refuse(name, f"must be {BOUNDS[name]}, got {value!r}")
        chosen = msgspec.structs.replace(chosen, **{name: int(value) if name == "top_k" else float(value)})
    if fields.values.get("do_sample") is False:
        chosen = msgspec.structs.replace(chosen, temperature=0.0)
    return chosen
