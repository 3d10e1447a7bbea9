"""Rules over ids against their definition, token by token, for rows with rules beside rows without."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from headway.core.constraints import TokenRules
from headway.core.sampling import SamplingParams
from headway.worker.plan import NO_RULES, NONE_ALLOWED
from headway.worker.sampling.sampler import Sampler

CPU = torch.device("cpu")
VOCAB = 12  # small, so that bad words come up, and so does having nothing left

ids = st.integers(0, VOCAB - 1)
rules = st.builds(
    TokenRules,
    logit_bias=st.dictionaries(ids, st.sampled_from([-100.0, -1.5, 0.5, 3.0, 100.0]), max_size=4).map(
        lambda bias: tuple(bias.items())
    ),
    allowed=st.just(()) | st.sets(ids, min_size=1, max_size=6).map(tuple),
    bad_words=st.lists(st.lists(ids, min_size=1, max_size=3).map(tuple), max_size=8).map(tuple),
    min_new_tokens=st.integers(0, 4),
    end_token_ids=st.sets(ids, max_size=2).map(tuple),
)


def plain(logits: np.ndarray, rules: TokenRules, output: list[int]) -> list[float]:
    """What the rules mean, one token at a time."""
    scores = [float(value) for value in logits]
    for token, value in rules.logit_bias:
        scores[token] = float(np.float32(scores[token]) + np.float32(value))
    for token in range(VOCAB):
        ends_word = any(
            word[-1] == token and output[len(output) - len(word) + 1 :] == list(word[:-1])
            for word in rules.bad_words
            if len(word) - 1 <= len(output)
        )
        too_early = token in rules.end_token_ids and len(output) < rules.min_new_tokens
        if (rules.allowed and token not in rules.allowed) or ends_word or too_early:
            scores[token] = -np.inf
    return scores


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(rules | st.just(NO_RULES), st.booleans()), min_size=1, max_size=5),
    prompt=st.lists(ids, min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    delivered=st.integers(0, 3),
)
def test_rules(rows: list[tuple[TokenRules, bool]], prompt: list[int], seed: int, delivered: int) -> None:
    """Each row goes on with what it drew; after `delivered` tokens it leaves and comes back, as after a migration."""
    draw = torch.Generator().manual_seed(seed)
    sampler, lone = Sampler(VOCAB, CPU), Sampler(VOCAB, CPU)
    params = [SamplingParams(temperature=0.0 if greedy else 1.0, seed=7) for _, greedy in rows]
    outputs: list[list[int]] = [[] for _ in rows]
    live = list(range(len(rows)))
    for step in range(6):
        if step in (0, delivered):
            for row in live:
                if step:
                    sampler.free(row)
                sampler.add(row, params[row], np.array(prompt + outputs[row]), len(prompt), row, rows[row][0])
        logits = torch.randn(len(live), VOCAB, generator=draw) * 2
        expected = [plain(logits[at].numpy(), rows[row][0], outputs[row]) for at, row in enumerate(live)]
        position = len(prompt) + step
        chosen = sampler.sample(logits.clone(), live, [position] * len(live))
        for row, token, scores in zip(tuple(live), chosen, expected, strict=True):
            if token == NONE_ALLOWED:
                assert max(scores) == -np.inf
                sampler.free(row)
                live = [other for other in live if other != row]
                continue
            assert scores[token] > -np.inf
            if rows[row][1]:
                assert token == int(np.argmax(scores))
            else:  # a row without rules over the same scores draws the same
                lone.add(row, params[row], np.array(prompt), 1, row)
                assert lone.sample(torch.tensor([scores]), [row], [position]) == [token]
                lone.free(row)
            outputs[row].append(token)
            sampler.append(row, token)


def test_sequences_of_one_request_differ_and_each_is_itself_in_any_batch() -> None:
    logits = torch.zeros(1, 5000)
    params = SamplingParams(temperature=1.0, seed=5)

    def sample(sequences: list[int], filters: SamplingParams) -> list[int]:
        sampler = Sampler(5000, CPU)
        for row, sequence in enumerate(sequences):
            sampler.add(row, filters, np.array([1]), 1, sequence)
        return sampler.sample(logits.expand(len(sequences), -1).clone(), list(range(len(sequences))), [3] * 4)

    together = sample([0, 1, 2, 63], params)
    assert len(set(together)) == 4
    assert sample([63, 0, 2, 1], params) == [together[index] for index in (3, 0, 2, 1)]


def test_rules_come_before_penalties_and_filters() -> None:
    """Top-k counts what the rules left, and a bias is penalized with its logit."""
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    sampler = Sampler(5, CPU)
    sampler.add(0, SamplingParams(temperature=1.0, seed=1, top_k=1), np.array([1]), 1, 0, TokenRules(bad_words=((0,),)))
    assert sampler.sample(logits.clone(), [0], [1]) == [1]
    penalized = SamplingParams(temperature=0.0, repetition_penalty=2.0)
    for bias, token in ((8.9, 0), (9.1, 4)):  # half of 1 + bias, against the 5 of a token that was not seen
        sampler = Sampler(5, CPU)
        sampler.add(0, penalized, np.array([4]), 1, 0, TokenRules(logit_bias=((4, bias),)))
        assert sampler.sample(logits.clone(), [0], [1]) == [token]


def test_a_row_begins_with_its_own_output_and_leaves_nothing_to_the_next() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    greedy = SamplingParams(temperature=0.0)
    penalized = SamplingParams(temperature=0.0, presence_penalty=2.0)
    word = TokenRules(bad_words=((3, 2, 0),), min_new_tokens=3, end_token_ids=(1,))
    sampler = Sampler(5, CPU)
    for prompt, output, token in (([1], [3, 2], 2), ([1, 3], [2], 0), ([1], [4, 3, 2], 1)):
        sampler.add(0, greedy, np.array(prompt + output), len(prompt), 0, word)
        assert sampler.sample(logits.clone(), [0], [3]) == [token]
        sampler.free(0)
        sampler.add(0, greedy, np.array([1]), 1)
        assert sampler.sample(logits.clone(), [0], [1]) == [0]
        sampler.free(0)
        sampler.add(0, penalized, np.array([1, 0]), 1)
        assert sampler.sample(logits.clone(), [0], [2]) == [1]
        sampler.free(0)
        sampler.add(0, greedy, np.array([1, 0]), 1)
        assert sampler.sample(logits.clone(), [0], [2]) == [0]
        sampler.free(0)
    assert not (sampler._params or sampler._sequences or sampler._counts or sampler._rules)
