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

SCALED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
FP8_CAPABILITY = (8, 9)  # of the first NVIDIA chips that convert it


def choose_kv_dtype(wanted: str, dtype: torch.dtype) -> torch.dtype:
    """The type of keys and values in the cache of a model of `dtype`. `wanted` is EngineSpec's kv_dtype."""
    if wanted == "auto":
        return dtype
    return SCALED.get(wanted, torch.bfloat16)


def kv_variant(wanted: str, dtype: torch.dtype) -> str:
    """Names what keys and values in the cache are, for the model's revision; empty where they are the model's own."""
    return "" if choose_kv_dtype(wanted, dtype) == dtype else f"kv {wanted}"


def kv_bytes_per_page(config: ModelConfig, split: Split, page_size: int, kv_dtype: torch.dtype) -> int:
    """Bytes that one page takes on this rank: keys and values of all its layers, with their scales."""
    head = config.head_dim * kv_dtype.itemsize + (torch.float32.itemsize if kv_dtype in SCALED.values() else 0)
    return 2 * split.layers.size * page_size * split.kv_heads.size * head


def allocate_cache(
    config: ModelConfig, split: Split, pages: int, page_size: int, kv_dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """Keys and values of each layer, and their scales, zeroed. Raises ConfigError when memory does not hold them, or
    the device does not know the type."""
    _check_type(kv_dtype, device)
    shape = (pages, page_size, split.kv_heads.size, config.head_dim)
    zeros = untouched if device.type == "cpu" else torch.zeros

    def layer() -> LayerCache:
        heads = [zeros(shape, dtype=kv_dtype, device=device) for _ in range(2)]
        scaled = 2 if kv_dtype in SCALED.values() else 0
        return LayerCache(*heads, *(zeros(shape[:3], dtype=torch.float32, device=device) for _ in range(scaled)))

    try:
        _check_memory(pages * kv_bytes_per_page(config, split, page_size, kv_dtype), device)
        return [layer() for _ in range(split.layers.size)]
    except (RuntimeError, MemoryError, OSError, OverflowError) as error:
        raise ConfigError(f"total_pages = {pages} does not fit the memory of {device}: {error}") from None


def _check_type(kv_dtype: torch.dtype, device: torch.device) -> None:
    if kv_dtype == torch.float8_e4m3fn and device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found < FP8_CAPABILITY:
            raise ConfigError(
                f"kv_dtype fp8 needs a device of compute capability 8.9 or higher, and {device} has "
                f"{found[0]}.{found[1]}: int8 takes as little memory"
            )


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
