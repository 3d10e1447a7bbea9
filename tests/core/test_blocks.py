"""Block keys: equal exactly when everything that makes KV content is equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.blocks import KEY_BYTES, chain_keys, join_keys, root_key, split_keys

tokens = st.lists(st.integers(0, 2**32 - 1), max_size=100)
page_sizes = st.sampled_from([1, 2, 4, 16])


@given(tokens, tokens, page_sizes)
def test_chains_agree_exactly_as_far_as_full_pages_do(first: list[int], second: list[int], page: int) -> None:
    root = root_key("revision")
    one, two = chain_keys(root, first, page), chain_keys(root, second, page)
    assert len(one) == len(first) // page
    for depth, (left, right) in enumerate(zip(one, two, strict=False), 1):
        assert (left == right) == (first[: depth * page] == second[: depth * page])


@given(tokens, page_sizes, st.integers(0, 6))
def test_chain_continues_from_any_page(ids: list[int], page: int, cut: int) -> None:
    root = root_key("revision")
    whole = chain_keys(root, ids, page)
    cut = min(cut, len(whole))
    parent = whole[cut - 1] if cut else root
    assert chain_keys(parent, ids[cut * page :], page) == whole[cut:]


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_roots_differ_when_any_field_does(fields: list[tuple[str, str, str, str]]) -> None:
    (a, b, c, d), (e, f, g, h) = fields
    one = root_key(a, adapter=b, tenant_salt=c, caller_salt=d)
    assert one != root_key(e, adapter=f, tenant_salt=g, caller_salt=h)


def test_keys_are_stable_across_processes_and_input_types() -> None:
    """A key is on the wire and in other processes' indexes: its bytes are part of the contract."""
    keys = chain_keys(root_key("r"), range(32), 16)
    assert [key.hex() for key in keys] == GOLDEN
    assert chain_keys(root_key("r"), np.arange(32, dtype=np.int64), 16) == keys


GOLDEN = ["8c58c6b75d8b0f2c8da8fcee799947ab", "f61634ebef09535c870726ca41fde654"]


@given(tokens)
def test_joined_keys_split_again(ids: list[int]) -> None:
    keys = chain_keys(root_key("r"), ids, 4)
    assert split_keys(join_keys(keys)) == keys


def test_broken_key_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes each"):
        split_keys(b"x" * (KEY_BYTES + 1))
