"""Tiny checkpoints, and groups of real ranks that stay up for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from rank_group import RankGroup
from tiny_llamas import SHAPES, Oracle, write_llama
from tiny_models import MODELS, write_model
from tiny_quantized import Written, write_quantized

DEMO = Path(__file__).parents[2] / "demo" / "headway-demo"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of a name in SHAPES or MODELS, or of "demo"."""

    @cache
    def get(name: str) -> Path:
        if name == "demo":
            return DEMO
        if name in MODELS:
            return write_model(tmp_path_factory.mktemp(name), name)
        return write_llama(tmp_path_factory.mktemp(name), seed=len(name), **SHAPES[name])

    return get


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """The quantized checkpoint of a name in CASES, and its weights in float."""
    return cache(lambda name: write_quantized(tmp_path_factory.mktemp(name), name))


@pytest.fixture(scope="session")
def oracle(checkpoint: Callable[[str], Path]) -> Callable[[str], Oracle]:
    """transformers' model of that checkpoint."""

    @cache
    def get(name: str) -> Oracle:
        return Oracle(checkpoint(name))

    return get


@pytest.fixture(scope="session")
def group_of() -> Iterator[Callable[[int, int], RankGroup]]:
    """The group of (tp, pp), started when first asked for."""
    groups: dict[tuple[int, int], RankGroup] = {}

    def get(tp: int, pp: int) -> RankGroup:
        if (tp, pp) not in groups:
            groups[tp, pp] = RankGroup(tp, pp)
        return groups[tp, pp]

    yield get
    for group in groups.values():
        group.close()


@pytest.fixture(params=[(1, 1), (2, 1), (1, 2), (2, 2)], ids=["tp1", "tp2", "pp2", "tp2-pp2"], scope="session")
def group(request: pytest.FixtureRequest, group_of: Callable[[int, int], RankGroup]) -> RankGroup:
    """Each shape of a group in turn."""
    return group_of(*request.param)
