"""`load_format` "dummy": random weights from config.json alone, the same function at every split."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_group import RankGroup
from script import Script

from headway.worker.model.random_weights import CHUNK, RandomWeights
from headway.worker.model.split import Part

SHAPES = ["gqa-tied", "biases", "gemma3", "qwen3-moe", "phi3"]


def draw(name: str, shape: tuple[int, ...], dim: int = 0, part: Part | None = None) -> torch.Tensor:
    size = list(shape)
    if part is not None:
        size[dim] = part.size
    out = torch.empty(size)
    RandomWeights().read(name, shape, out, dim=dim, part=part)
    return out


def test_matrices_have_the_variance_that_keeps_activations_in_bounds() -> None:
    matrix = draw("a.weight", (700, 400))
    assert abs(float(matrix.mean())) < 1e-3
    assert math.isclose(float(matrix.var()), 1 / 400, rel_tol=0.01)
    assert math.isclose(float((matrix @ torch.randn(400, 64)).var()), 1, rel_tol=0.05)
    norm, bias = draw("norm.weight", (4096,)), draw("q.bias", (4096,))
    assert abs(float(norm.mean()) - 1) < 0.01 and abs(float(bias.mean())) < 0.01
    assert 0.01 < float(bias.std()) < 0.03


def test_neighbours_and_names_have_nothing_to_do_with_each_other() -> None:
    """Correlations of 2^18 pairs stay within five standard deviations of none."""
    first, second = draw("layers.0.weight", (512, 512)).flatten(), draw("layers.1.weight", (512, 512)).flatten()
    assert len(set(first.tolist())) > 0.99 * 2**18
    for other in (second, first.roll(1), first.roll(512), second.roll(7)):
        assert abs(float(torch.corrcoef(torch.stack((first, other)))[0, 1])) < 5 / 512


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), dim=st.integers(0, 1), data=st.data())
def test_a_part_is_the_whole_s_part(rows: int, columns: int, dim: int, data: st.DataObject) -> None:
    size = (rows, columns)[dim]
    start = data.draw(st.integers(0, size - 1))
    part = Part(start, data.draw(st.integers(start + 1, size)))
    assert torch.equal(draw("w", (rows, columns), dim, part), draw("w", (rows, columns)).narrow(dim, start, part.size))


@pytest.mark.parametrize("shape", [(3, CHUNK["cpu"] + 5), (CHUNK["cpu"] + 5, 3), (2 * CHUNK["cpu"] + 1,)])
def test_parts_beyond_a_chunk(shape: tuple[int, ...]) -> None:
    whole = draw("w.bias", shape)
    for dim, size in enumerate(shape):
        part = Part(size // 3, size)
        assert torch.equal(draw("w.bias", shape, dim, part), whole.narrow(dim, part.start, part.size))
    assert len(set(whole.flatten().tolist())) > 0.99 * whole.numel()


def test_positions_beyond_32_bits() -> None:
    """The far end of a huge tensor is drawn like any other, without the rest."""
    part = Part(2**20 - 2, 2**20)
    rows = draw("w", (2**20, 2**13), 0, part)
    assert torch.equal(draw("w", (2**20, 2**13), 0, Part(part.stop - 1, part.stop)), rows[1:])
    assert math.isclose(float(rows.var()), 2**-13, rel_tol=0.05)


@pytest.mark.parametrize("name", SHAPES)
def test_every_split_computes_the_same(
    name: str, checkpoint: Callable[[str], Path], group_of: Callable[[int, int], RankGroup], tmp_path: Path
) -> None:
    shutil.copy(checkpoint(name) / "config.json", tmp_path)
    expected: tuple[list[int], np.ndarray] | None = None
    revisions = set()
    for tp, pp in ((1, 1), (2, 1), (1, 2)):
        group = group_of(tp, pp)
        revisions |= {info.revision for info in group.load(tmp_path, load_format="dummy")}
        script = Script(group)
        row = script.add(0, [5, 9, 3, 100, 42, 77])
        script.finish(8)
        logits = np.stack(row.logits)
        expected = expected or (row.output, logits)
        assert row.output == expected[0] and len(set(row.output)) > 1
        np.testing.assert_allclose(logits, expected[1], atol=1e-4, rtol=1e-4)
    assert len(revisions) == 1


def test_weights_that_are_there_are_left_alone(
    checkpoint: Callable[[str], Path], group_of: Callable[[int, int], RankGroup]
) -> None:
    group, path = group_of(1, 1), checkpoint("gqa-tied")
    real = group.load(path)[0]
    dummy = group.load(path, load_format="dummy")[0]
    assert real.revision != dummy.revision and real.architecture == dummy.architecture
    assert json.loads((path / "config.json").read_text())["vocab_size"] == dummy.vocab_size
