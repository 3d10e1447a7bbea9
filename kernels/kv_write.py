"""Writes new keys and values into the paged cache."""

from __future__ import annotations

from torch import Tensor


def kv_write(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor) -> None:
    """Stores token i's key and value in slot `slots[i]` = page * page_size + offset in the page.

    key, value: [tokens, kv_heads, head_dim]; caches: [pages, page_size, kv_heads, head_dim], contiguous;
    slots: [tokens] int64, all different.
    """
    heads, head_dim = key_cache.shape[2:]
    key_cache.view(-1, heads, head_dim).index_copy_(0, slots, key)
    value_cache.view(-1, heads, head_dim).index_copy_(0, slots, value)
