"""The paged cache of one layer, and how heads go in and out of it by torch.

It may be narrower than the model: int8 or fp8 (e4m3), with one float32 scale for each token and KV head, taken from the
largest magnitude of that key or value when it is written; or of another float type, and then without scales.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .narrow import quantize_heads


class KvPages(NamedTuple):
    """Keys and values of one layer.

    keys, values: [pages, page_size, kv_heads, head_dim], contiguous, of a float type, int8 or float8_e4m3fn; for the
    narrow two key_scales, value_scales: [pages, page_size, kv_heads] float32, else None.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    @property
    def page_size(self) -> int:
        return int(self.keys.shape[1])

    @property
    def narrow(self) -> bool:
        """Whether there are scales."""
        return self.key_scales is not None

    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        return [part for part in self if part is not None]


def store_heads(new: Tensor, cache: Tensor, scales: Tensor | None, slots: Tensor) -> None:
    """Puts `new` [tokens, kv_heads, head_dim] into `slots` ([tokens] int64, all different) of keys or values."""
    flat = cache.view(-1, *cache.shape[2:])
    if scales is None:
        flat.index_copy_(0, slots, new.to(cache.dtype))
        return
    narrow, scale = quantize_heads(new, cache.dtype)
    # As bytes: torch copies no fp8 by index on CPU.
    flat.view(torch.uint8).index_copy_(0, slots, narrow.view(torch.uint8))
    scales.view(-1, scales.shape[2]).index_copy_(0, slots, scale)


def load_heads(cache: Tensor, scales: Tensor | None, slots: Tensor, dtype: torch.dtype) -> Tensor:
    """What lies in `slots` ([tokens] int64) of keys or values, as `dtype`, [tokens, kv_heads * head_dim]."""
    _, _, kv_heads, head_dim = cache.shape
    found = cache.view(-1, kv_heads * head_dim).index_select(0, slots)
    if scales is None:
        return found.to(dtype)
    scale = scales.view(-1, kv_heads, 1).index_select(0, slots)
    return (found.view(-1, kv_heads, head_dim).to(torch.float32) * scale).to(dtype).view(len(slots), -1)
