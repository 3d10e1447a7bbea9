"""The model, as a rank describes it to its leader."""

from __future__ import annotations

import msgspec

from ...core.sampling import SamplingParams


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The model as this group serves it. `kv_bytes_per_page` is one rank's; `dtype` and `device` are torch's names.
    `batch_invariant` says what the mode of that name came to."""

    revision: str
    architecture: str
    vocab_size: int
    hidden_size: int
    max_context_tokens: int
    eos_token_ids: tuple[int, ...]
    default_sampling: SamplingParams
    kv_bytes_per_page: int
    page_size: int
    dtype: str
    device: str
    batch_invariant: bool
