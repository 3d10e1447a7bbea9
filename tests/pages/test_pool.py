"""The pool's own promises; what it promises together with the scheduler is in tests/scheduler."""

import numpy as np
import pytest

from headway.core.blocks import chain_keys, root_key
from headway.worker.pages import KvOp, PagePool

SIZE = 4
ROOT = root_key("revision")


def fill(pool: PagePool, tokens: list[int]) -> list[int]:
    """Takes pages for the tokens, as computed, and stores them."""
    keys = chain_keys(ROOT, tokens, SIZE)
    pages = pool.take(len(keys))
    for at, (page, key) in enumerate(zip(pages, keys, strict=True)):
        pool.store(page, key, keys[at - 1] if at else ROOT, data(tokens[at * SIZE : (at + 1) * SIZE]))
    return pages


def data(tokens: list[int]) -> bytes:
    return np.array(tokens, "<u4").tobytes()


def match(pool: PagePool, tokens: list[int]) -> list[int]:
    return pool.match(ROOT, chain_keys(ROOT, tokens, SIZE), data(tokens), 100)


def test_the_longest_unused_gives_way_first_and_tails_before_heads():
    pool = PagePool(4, SIZE)
    old, new = list(range(8)), list(range(100, 108))
    first, second = fill(pool, old), fill(pool, new)
    pool.release(first)
    pool.release(second)
    pool.take(1)
    assert match(pool, old) == first[:1] and match(pool, new) == second
    pool.take(1)
    assert match(pool, old) == [] and match(pool, new) == second


def test_a_hit_compares_tokens_and_parent():
    pool = PagePool(4, SIZE)
    tokens = list(range(8))
    pages = fill(pool, tokens)
    keys = chain_keys(ROOT, tokens, SIZE)
    assert pool.match(ROOT, keys, data(tokens), 100) == pages
    assert pool.match(ROOT, keys, data([9, *tokens[1:]]), 100) == []
    assert pool.match(ROOT, keys, data([*tokens[:7], 9]), 100) == pages[:1]
    assert pool.match(root_key("another"), keys, data(tokens), 100) == []
    assert pool.match(ROOT, keys, data(tokens), 1) == pages[:1]


def test_content_computed_twice_keeps_the_first():
    pool = PagePool(4, SIZE)
    tokens = list(range(4))
    first, second = fill(pool, tokens), fill(pool, tokens)
    pool.release(second)
    assert match(pool, tokens) == first and pool.cached_pages == 0 and pool.used_pages == 1
    assert [(change.op, len(change.keys)) for change in pool.events.drain()] == [(KvOp.STORED, 1)]


def test_shared_pages_outlive_their_first_holder():
    pool = PagePool(2, SIZE)
    pages = fill(pool, list(range(8)))
    pool.share(pages[:1])
    pool.release(pages)
    assert pool.used_pages == 1 and pool.cached_pages == 1
    with pytest.raises(MemoryError, match="2 pages asked for, 1 free"):
        pool.take(2)
    pool.release(pages[:1])
    assert pool.used_pages == 0 and pool.cached_pages == 2


def test_clear_forgets_everything_and_says_only_that():
    pool = PagePool(4, SIZE)
    pages = fill(pool, list(range(8)))
    pool.release(pages[1:])
    pool.clear()
    assert match(pool, list(range(8))) == [] and pool.used_pages == 1 and pool.cached_pages == 0
    assert [change.op for change in pool.events.drain()] == [KvOp.CLEARED]
    pool.release(pages[:1])
    assert pool.free_pages == 4
