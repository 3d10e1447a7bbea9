"""Writes new keys and values into the paged cache."""

from __future__ import annotations

from torch import Tensor

from .kv_pages import KvPages, store_heads


def kv_write(key: Tensor, value: Tensor, pages: KvPages, slots: Tensor) -> None:
    """Stores token i's key and value in slot `slots[i]` = page * page_size + offset in the page.

    key, value: [tokens, kv_heads, head_dim]; slots: [tokens] int64, all different.
    """
    store_heads(key, pages.keys, pages.key_scales, slots)
    store_heads(value, pages.values, pages.value_scales, slots)
