"""The paged cache of this rank's layers and KV heads."""

from __future__ import annotations

import math
import mmap

import psutil
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
    zeros = untouched if device.type == "cpu" else torch.zeros
    try:
        _check_memory(2 * split.layers.size * math.prod(shape) * dtype.itemsize, device)
        return [
            (zeros(shape, dtype=dtype, device=device), zeros(shape, dtype=dtype, device=device))
            for _ in range(split.layers.size)
        ]
    except (RuntimeError, MemoryError, OSError, OverflowError) as error:
        raise ConfigError(f"total_pages = {pages} does not fit the memory of {device}: {error}") from None


def _check_memory(needed: int, device: torch.device) -> None:
    """Raises MemoryError for more than the machine has: pages that are not written yet would hide it until later."""
    total = psutil.virtual_memory().total
    if device.type == "cpu" and needed > total:
        raise MemoryError(f"{needed} bytes, and it has {total}")


def untouched(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros that take memory only where they are written: torch.zeros writes every byte, so that an idle replica would
    hold its whole cache."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=flags)
    return torch.frombuffer(memory, dtype=dtype).reshape(shape)
