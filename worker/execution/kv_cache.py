"""The paged cache of this rank's layers and KV heads."""

from __future__ import annotations

import torch

from ...core.errors import ConfigError
from ..model.config import ModelConfig
from ..model.inputs import LayerCache
from ..model.split import Split


def kv_bytes_per_page(config: ModelConfig, split: Split, page_size: int, dtype: torch.dtype) -> int:
    """Bytes that one page takes on this rank, keys and values of all its layers."""
    return 2 * split.layers.size * page_size * split.kv_heads.size * config.head_dim * dtype.itemsize


def allocate_cache(
    config: ModelConfig, split: Split, pages: int, page_size: int, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """Keys and values of each layer, zeroed, [pages, page_size, kv_heads, head_dim]. Raises ConfigError when memory
    does not hold them."""
    shape = (pages, page_size, split.kv_heads.size, config.head_dim)

    def zeros() -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    try:
        return [(zeros(), zeros()) for _ in range(split.layers.size)]
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(f"total_pages = {pages} does not fit the memory of {device}: {error}") from None
