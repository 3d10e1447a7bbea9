"""With `batch_invariant`, a request's tokens and log probabilities are the same bits in whatever company, however its
prompt is cut, with a part of it cached, and after preemption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from rank_group import PAGE_SIZE, RankGroup
from script import Place, Script
from tiny_llamas import VOCAB, write_llama

from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec
from headway.kernels.attention_choice import chosen

NEW = 8
PROMPT = np.random.default_rng(7).integers(2, VOCAB, 4 * PAGE_SIZE + 3).tolist()
WAYS = [SamplingParams(temperature=0.0), SamplingParams(temperature=1.0, seed=11, top_p=0.95)]
PAGES = 300
BY_TORCH = ("worker.model.linear.native_type", "kernels.paged_attention.native_type", "kernels.fused_moe.native_type")


class Case(NamedTuple):
    """A model, the group that has it, its type, and whether the operations in C are there."""

    model: str
    shape: tuple[int, int] = (1, 1)
    dtype: str = "float32"
    in_c: bool = True


CASES = [
    Case("gqa-tied"),
    Case("biases", (2, 1), "bfloat16"),
    Case("wide"),
    Case("wide", in_c=False),
    Case("gqa-tied", dtype="bfloat16", in_c=False),
    Case("gemma2", dtype="bfloat16"),
    Case("mixtral", dtype="bfloat16"),
    Case("mixtral", in_c=False),
]


class Scenario(NamedTuple):
    """Rows beside the request: when each comes, how long it is, how much of it a step takes. `chunk` is the request's
    own, the first `cached` pages of its prompt are there, and after `preempted` tokens it begins again."""

    beside: list[tuple[int, int, int]]
    chunk: int
    cached: int
    preempted: int


ALONE = Scenario([], 1000, 0, NEW)
SCENARIOS = st.builds(
    Scenario,
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 60), st.integers(1, 60)), max_size=18),
    st.integers(1, len(PROMPT)),
    st.integers(0, len(PROMPT) // PAGE_SIZE),
    st.integers(1, NEW),
)


class Loaded(NamedTuple):
    """A script over a loaded group, and what the prompt gives alone, by way of sampling."""

    script: Script
    alone: list[tuple[list[int], list[bytes]]]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def loaded(
    request: pytest.FixtureRequest,
    group_of: Callable[[int, int], RankGroup],
    checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loaded]:
    case: Case = request.param
    path = wide(tmp_path_factory.mktemp("wide")) if case.model == "wide" else checkpoint(case.model)
    group = group_of(*case.shape)
    with pytest.MonkeyPatch.context() as patch:
        if not case.in_c:
            for name in BY_TORCH:
                patch.setattr(f"headway.{name}", lambda *_: False)
        engine = EngineSpec(page_size=PAGE_SIZE, batch_invariant="on")
        patch.setattr(chosen, "decode", object())  # as a group before this one in the process may have left it
        group.load(path, pages=PAGES, dtype=case.dtype, engine=engine)
        # Several ranks are processes of their own.
        assert chosen.decode is None or case.shape != (1, 1), "an invariant group attends by its own kernels alone"
        script = Script(group, pages=PAGES)
        yield Loaded(script, [run(script, ALONE, way) for way in WAYS])


def wide(path: Path) -> Path:
    """Wide enough for the libraries to sum by the number of rows."""
    return write_llama(path, hidden_size=1024, intermediate_size=1536, num_hidden_layers=1)


def run(script: Script, scenario: Scenario, way: SamplingParams) -> tuple[list[int], list[bytes]]:
    """Tokens of the request, and the bits of their log probabilities with the four likeliest of each place."""
    cached = scenario.cached * PAGE_SIZE
    pages: list[int] = []
    if cached:
        donor = script.add(40, PROMPT[:cached])
        script.turn({40: cached})
        pages = donor.pages
        script.free(40, keep_pages=True)
    random = np.random.default_rng(3)
    row = script.add(0, PROMPT, way, shared=list(pages), tops=(4, -1))
    index, places, step = 0, list[Place](), 0
    while len(row.output) < NEW:
        for number, (start, length, _) in enumerate(scenario.beside):
            if start == step:
                script.add(1 + number, random.integers(2, VOCAB, length).tolist())
        counts = {index: min(scenario.chunk, script.remaining(index))}
        counts |= {
            other: min(scenario.beside[other - 1][2], script.remaining(other))
            for other in script.rows
            if other != index and len(script.rows[other].output) < NEW
        }
        script.turn(dict(sorted(counts.items(), key=lambda item: (item[0] * 7) % 5)))
        step += 1
        if index == 0 and len(row.output) == scenario.preempted < NEW:
            places += row.logprobs
            script.free(0, keep_pages=True)
            script.free_pages += row.pages[len(pages) :]
            index, row = 50, script.add(50, row.tokens, way, prompt=len(PROMPT), shared=list(pages), tops=(4, -1))
    places += row.logprobs
    tokens = row.output
    for other in list(script.rows):
        script.free(other, keep_pages=other == index)
    script.free_pages = list(range(PAGES))[::-1]
    return tokens, [ids.tobytes() + values.tobytes() for ids, values in places]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCENARIOS, st.integers(0, 1))
def test_the_same_bits_in_any_company(loaded: Loaded, scenario: Scenario, way: int) -> None:
    tokens, bits = run(loaded.script, scenario, WAYS[way])
    assert tokens == loaded.alone[way][0]
    assert len(bits) == NEW and bits == loaded.alone[way][1]
