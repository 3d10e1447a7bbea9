"""Each architecture says what transformers says, at every split, in chunks, beyond its windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rank_group import PAGE_SIZE, RankGroup
from script import Script
from tiny_llamas import VOCAB, Oracle
from tiny_models import CHUNKS, FOUR_RANKS, LOGITS_TOLERANCE, MODELS, NEW_TOKENS, PROMPTS

from headway.core.errors import ConfigError
from headway.core.specs import EngineSpec

LONG = "phi3-long"


@pytest.fixture(scope="module")
def logits(oracle: Callable[[str], Oracle]) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """transformers' logits of every position, computed once for all groups that come to the same tokens."""

    @cache
    def get(name: str, tokens: tuple[int, ...]) -> np.ndarray:
        return oracle(name).logits(list(tokens)).numpy()

    return get


def run(group: RankGroup, model: Path, chunk: int, sizes: tuple[int, ...] = PROMPTS, limit: int = 0) -> Script:
    """Greedy rows of random prompts: the longer they are, the later they begin to decode beside the others."""
    group.load(model, engine=EngineSpec(page_size=PAGE_SIZE, max_context_tokens=limit))
    draw = np.random.default_rng(7)
    script = Script(group)
    for index, size in enumerate(sizes):
        script.add(index, draw.integers(2, VOCAB, size).tolist())
    script.finish(NEW_TOKENS, chunk)
    return script


def check(script: Script, expected_of: Callable[[tuple[int, ...]], np.ndarray]) -> None:
    """Tokens are the oracle's greedy ones, logits within the tolerance, and the rows say many different things."""
    for row in script.rows.values():
        expected = expected_of(tuple(row.tokens))[row.prompt - 1 : -1]
        assert row.output == expected.argmax(-1).tolist()
        np.testing.assert_allclose(np.stack(row.logits), expected, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE)
    assert len({tuple(row.output) for row in script.rows.values()}) == len(script.rows)
    assert len({token for row in script.rows.values() for token in row.output}) > 2 * len(script.rows)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", [name for name in MODELS if name != LONG])
def test_one_rank(
    name: str,
    chunk: int,
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    logits: Callable[[str, tuple[int, ...]], np.ndarray],
) -> None:
    check(run(group_of(1, 1), checkpoint(name), chunk), lambda tokens: logits(name, tokens))


@pytest.mark.parametrize("shape", [(2, 1), (1, 2)], ids=["tp2", "pp2"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != LONG])
def test_two_ranks(
    name: str,
    shape: tuple[int, int],
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    logits: Callable[[str, tuple[int, ...]], np.ndarray],
) -> None:
    check(run(group_of(*shape), checkpoint(name), 13), lambda tokens: logits(name, tokens))


@pytest.mark.parametrize("name", FOUR_RANKS)
def test_four_ranks(
    name: str,
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    logits: Callable[[str, tuple[int, ...]], np.ndarray],
) -> None:
    check(run(group_of(2, 2), checkpoint(name), 13), lambda tokens: logits(name, tokens))


@pytest.mark.parametrize("shape", [(1, 1), (2, 1)], ids=["tp1", "tp2"])
@pytest.mark.parametrize(("limit", "sizes"), [(32, (1, 5, 17, 24)), (0, (33, 40, 60))], ids=["short", "long"])
def test_longrope_goes_by_the_context_that_is_served(
    shape: tuple[int, int],
    limit: int,
    sizes: tuple[int, ...],
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    logits: Callable[[str, tuple[int, ...]], np.ndarray],
) -> None:
    """Up to the original 32 tokens transformers takes the short factors, beyond the long ones for all positions."""
    group = group_of(*shape)
    check(run(group, checkpoint(LONG), 13, sizes, limit), lambda tokens: logits(LONG, tokens))


def test_keys_of_short_and_long_factors_have_different_roots(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    group = group_of(1, 1)
    infos = [
        group.load(checkpoint(LONG), engine=EngineSpec(page_size=PAGE_SIZE, max_context_tokens=limit))[0]
        for limit in (0, 16, 32, 33)
    ]
    revisions = [info.revision for info in infos]
    assert revisions[0] == revisions[3] != revisions[1] == revisions[2]


def test_ranks_share_kv_heads(group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]) -> None:
    """Both ranks of two hold the one KV head, and so pages of the same size as one rank alone."""
    one = group_of(1, 1).load(checkpoint("llama-one-kv-head"))[0]
    two = group_of(2, 1).load(checkpoint("llama-one-kv-head"))
    assert [info.kv_bytes_per_page for info in two] == [one.kv_bytes_per_page] * 2


def test_more_ranks_than_kv_heads(
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    logits: Callable[[str, tuple[int, ...]], np.ndarray],
) -> None:
    """Two KV heads, four ranks."""
    check(run(group_of(4, 1), checkpoint("qwen3"), 13), lambda tokens: logits("qwen3", tokens))


def test_context_that_yarn_stretches(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    group = group_of(1, 1)
    assert group.load(checkpoint("llama-yarn"))[0].max_context_tokens == 256
    with pytest.raises(ConfigError, match="max_context_tokens = 257"):
        group.load(checkpoint("llama-yarn"), engine=EngineSpec(max_context_tokens=257))
