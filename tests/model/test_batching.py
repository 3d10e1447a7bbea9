"""How the work is cut into steps, and who shares a step, changes no token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import PAGE_SIZE, RankGroup
from script import Script
from tiny_llamas import VOCAB, Oracle

from headway.core.sampling import SamplingParams

MODEL = "gqa-tied"
NEW_TOKENS = 10


def prompt(seed: int, size: int) -> list[int]:
    return np.random.default_rng(seed).integers(2, VOCAB, size).tolist()


@pytest.fixture
def loaded(group: RankGroup, checkpoint: Callable[[str], Path]) -> RankGroup:
    group.load(checkpoint(MODEL))
    return group


@pytest.mark.parametrize("chunk", [1, 3, PAGE_SIZE, 11])
def test_chunked_prefill(loaded: RankGroup, oracle: Callable[[str], Oracle], chunk: int) -> None:
    script = Script(loaded)
    for index, size in enumerate((2, 9, 30)):
        script.add(index, prompt(index, size))
    script.finish(NEW_TOKENS, chunk)
    for row in script.rows.values():
        assert row.output == oracle(MODEL).greedy(row.tokens[: row.prompt], NEW_TOKENS)


def test_rows_come_and_go_while_others_decode(loaded: RankGroup, oracle: Callable[[str], Oracle]) -> None:
    script = Script(loaded, pages=16)
    script.add(0, prompt(10, 21))
    script.add(3, prompt(11, 4))
    script.turn({3: 4, 0: 13})  # a whole prompt beside a chunk
    script.turn({0: 8, 3: 1})  # the rest of the prompt beside a decode
    first = script.add(1, prompt(12, 9))
    script.turn({1: 9, 3: 1, 0: 1})
    for _ in range(4):
        script.turn({0: 1, 1: 1, 3: 1})
    assert first.output == oracle(MODEL).greedy(prompt(12, 9), 5)
    script.free(1)
    again = script.add(1, prompt(13, 33))  # the row and its pages are taken again at once
    script.turn({1: 20, 0: 1})
    script.turn({1: 13, 3: 1})
    script.finish(NEW_TOKENS)
    assert again.output == oracle(MODEL).greedy(prompt(13, 33), NEW_TOKENS)
    for index, seed, size in ((0, 10, 21), (3, 11, 4)):
        assert script.rows[index].output == oracle(MODEL).greedy(prompt(seed, size), len(script.rows[index].output))


def test_two_rows_share_the_pages_of_a_prefix(loaded: RankGroup, oracle: Callable[[str], Oracle]) -> None:
    script = Script(loaded)
    common = prompt(20, 2 * PAGE_SIZE)
    first = script.add(0, common + prompt(21, 3))
    script.turn({0: len(first.tokens)})
    second = script.add(1, common + prompt(22, 6), shared=first.pages[:2])
    assert second.computed == len(common)
    script.finish(NEW_TOKENS)
    for row in (first, second):
        assert row.output == oracle(MODEL).greedy(row.tokens[: row.prompt], NEW_TOKENS)


def test_a_prefix_outlives_its_first_owner(loaded: RankGroup, oracle: Callable[[str], Oracle]) -> None:
    script = Script(loaded)
    common = prompt(30, PAGE_SIZE)
    first = script.add(0, common + prompt(31, 5))
    script.finish(3)
    script.free(0, keep_pages=True)
    second = script.add(0, common + prompt(32, 4), shared=first.pages[:1])
    script.finish(NEW_TOKENS)
    assert second.output == oracle(MODEL).greedy(second.tokens[: second.prompt], NEW_TOKENS)


def test_preempted_row_is_recomputed_with_its_output(loaded: RankGroup, oracle: Callable[[str], Oracle]) -> None:
    script = Script(loaded)
    row = script.add(0, prompt(40, 12))
    script.finish(6)
    script.free(0)
    back = script.add(5, row.tokens, prompt=12)
    script.finish(NEW_TOKENS)
    assert back.output == oracle(MODEL).greedy(prompt(40, 12), NEW_TOKENS)


SAMPLED = [
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=0.8, seed=2**63 + 5, top_p=0.9),
    SamplingParams(temperature=1.5, seed=3, top_k=30, min_p=0.01),
    SamplingParams(temperature=1.0, seed=4, frequency_penalty=0.8, presence_penalty=0.3, repetition_penalty=1.2),
]


def test_sampled_tokens_do_not_depend_on_the_group_or_the_batch(
    group: RankGroup, group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    """Alone on one rank is what they are compared with; the group takes them together, and preempts one."""
    single = group_of(1, 1)
    single.load(checkpoint(MODEL))
    expected = []
    for index, params in enumerate(SAMPLED):
        script = Script(single)
        row = script.add(index, prompt(60 + index, 7 + index), params)
        script.finish(NEW_TOKENS)
        expected.append(row.output)
    group.load(checkpoint(MODEL))
    script = Script(group)
    for index, params in enumerate(SAMPLED):
        script.add(index, prompt(60 + index, 7 + index), params)
    script.finish(4, chunk=5)
    gone = script.rows[3]
    script.free(3)
    script.turn({0: 1})
    script.add(3, gone.tokens, gone.sampling, prompt=gone.prompt)
    script.finish(NEW_TOKENS)
    assert [script.rows[index].output for index in range(len(SAMPLED))] == expected
    assert len({tuple(output) for output in expected}) == len(SAMPLED)


PENALIZED = SamplingParams(temperature=0.0, frequency_penalty=1.5, presence_penalty=2.0, repetition_penalty=1.3)


def penalized_greedy(oracle: Oracle, tokens: list[int], count: int) -> list[int]:
    """By the definition, one token at a time."""
    prompt, tokens = len(tokens), list(tokens)
    for _ in range(count):
        scores = oracle.logits(tokens)[-1].numpy().astype(np.float64)
        for token in set(tokens):
            scores[token] *= 1 / PENALIZED.repetition_penalty if scores[token] > 0 else PENALIZED.repetition_penalty
        for token in set(tokens[prompt:]):
            times = tokens[prompt:].count(token)
            scores[token] -= times * PENALIZED.frequency_penalty + PENALIZED.presence_penalty
        tokens.append(int(scores.argmax()))
    return tokens[prompt:]


def test_penalties_count_output_as_it_comes_and_after_a_return(
    loaded: RankGroup, oracle: Callable[[str], Oracle]
) -> None:
    """What a row brings along when it comes back, or comes from another replica, is its output and not its prompt."""
    start = prompt(70, 6)
    expected = penalized_greedy(oracle(MODEL), start, 24)
    assert expected != oracle(MODEL).greedy(start, 24)
    assert expected[8:] != penalized_greedy(oracle(MODEL), start + expected[:8], 16)
    script = Script(loaded)
    row = script.add(0, start, PENALIZED)
    script.finish(8)
    script.free(0)
    back = script.add(2, row.tokens, PENALIZED, prompt=len(start))
    script.finish(24)
    assert back.output == expected


@pytest.mark.parametrize("model", [MODEL, "gemma2", "qwen2-windows", "phi3"])
def test_alone_and_in_a_batch_the_logits_are_the_same_bits(
    model: str, group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    """Decoding alone or beside fifteen others; near-ties of logits then cannot fall otherwise."""
    group = group_of(1, 1)
    group.load(checkpoint(model), pages=128)

    def decode(others: int) -> np.ndarray:
        script = Script(group, pages=128)
        watched = script.add(0, prompt(50, 20))
        for index in range(1, others + 1):
            script.add(index, prompt(50 + index, 3 * index))
        for index in script.rows:  # prompts one by one, so that only decoding differs
            script.turn({index: script.rows[index].prompt})
        for _ in range(NEW_TOKENS):
            script.turn(dict.fromkeys(script.rows, 1))
        logits = np.stack(watched.logits)
        for index in list(script.rows):
            script.free(index)
        script.turn({})
        return logits

    assert np.array_equal(decode(0), decode(15))
