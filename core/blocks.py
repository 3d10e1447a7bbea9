"""Block keys: the name of a full page of KV, the same on both sides of the wire.

The key of a full page is the 128-bit xxh3 of its parent's key and its token ids as little-endian u32. The chain starts
at a root, and everything that changes KV content other than the tokens is in that root: model revision, adapter,
tenant's salt. Two requests share a page exactly when their chains agree up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType

import numpy as np
import xxhash

BlockKey = NewType("BlockKey", bytes)

KEY_BYTES = 16
DEFAULT_PAGE_SIZE = 16


def root_key(model_revision: str, *, adapter: str = "", tenant_salt: str = "", caller_salt: str = "") -> BlockKey:
    """Key from which chains of this model, adapter and tenant start.

    The fields are length-prefixed, so that no two different sets of them make the same bytes. A caller's salt can only
    narrow sharing: it adds to the tenant's and never replaces it.
    """
    digest = xxhash.xxh3_128()
    for field in (model_revision, adapter, tenant_salt, caller_salt):
        data = field.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return BlockKey(digest.digest())


def chain_keys(parent: BlockKey, token_ids: Sequence[int] | np.ndarray, page_size: int) -> list[BlockKey]:
    """Keys of the full pages of `token_ids`, in order; the partial page at the end has none.

    `parent` is the root, or the key of the page just before the first token.
    """
    tokens = np.ascontiguousarray(token_ids, dtype="<u4").tobytes()
    width = page_size * 4
    keys: list[BlockKey] = []
    key = parent
    for start in range(0, len(tokens) - width + 1, width):
        key = BlockKey(xxhash.xxh3_128_digest(key + tokens[start : start + width]))
        keys.append(key)
    return keys


def join_keys(keys: Sequence[BlockKey]) -> bytes:
    """Keys one after the other, as KV events carry them."""
    return b"".join(keys)


def split_keys(data: bytes) -> list[BlockKey]:
    """The inverse of `join_keys`. Raises ValueError when `data` is no whole number of keys."""
    if len(data) % KEY_BYTES:
        raise ValueError(f"block keys are {KEY_BYTES} bytes each, got {len(data)} bytes")
    return [BlockKey(data[start : start + KEY_BYTES]) for start in range(0, len(data), KEY_BYTES)]
