"""What is drawn: the right distribution, and the same token whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headway.core.sampling import SamplingParams
from headway.worker.sampling.noise import gumbel, gumbel_for_all
from headway.worker.sampling.sampler import Sampler

CPU = torch.device("cpu")
VOCAB = 11
DRAWS = 20_000
# Chi-square of 10 degrees of freedom exceeds this once in a million; the seeds are fixed, so the verdict is too.
CHI_SQUARE_LIMIT = 45.0


def draw(logits: torch.Tensor, params: SamplingParams, count: int) -> np.ndarray:
    """`count` tokens at successive positions of one sequence."""
    sampler = Sampler(logits.shape[-1], CPU)
    sampler.add(0, params, np.array([1]), 1)
    tokens = sampler.sample(logits.expand(count, -1).clone(), [0] * count, list(range(count)))
    return np.bincount(tokens, minlength=logits.shape[-1])


@pytest.mark.parametrize(
    ("params", "alive"),
    [
        (SamplingParams(temperature=1.0, seed=1), range(VOCAB)),
        (SamplingParams(temperature=0.5, seed=2**64 - 1), range(VOCAB)),
        (SamplingParams(temperature=2.0, seed=3, top_k=4), range(4)),
        (SamplingParams(temperature=1.0, seed=2**63, min_p=0.25), range(5)),
    ],
)
def test_distribution(params: SamplingParams, alive: range) -> None:
    logits = torch.linspace(0, -3.2, VOCAB)  # min-p 0.25 keeps those above -1.39
    found = draw(logits, params, DRAWS)
    expected = np.zeros(VOCAB)
    expected[alive] = torch.softmax(logits[list(alive)] / params.temperature, -1).numpy() * DRAWS
    assert found[len(alive) :].sum() == 0
    kept = slice(0, len(alive))
    chi_square = (((found - expected) ** 2)[kept] / expected[kept]).sum()
    assert chi_square < CHI_SQUARE_LIMIT


def test_distribution_does_not_stick_to_a_seed() -> None:
    """Neighbouring seeds at one position are as good as neighbouring positions."""
    logits = torch.zeros(DRAWS, VOCAB)
    sampler = Sampler(VOCAB, CPU)
    for row in range(DRAWS):
        sampler.add(row, SamplingParams(seed=row), np.array([1]), 1)
    found = np.bincount(sampler.sample(logits, list(range(DRAWS)), [17] * DRAWS), minlength=VOCAB)
    assert (((found - DRAWS / VOCAB) ** 2) / (DRAWS / VOCAB)).sum() < CHI_SQUARE_LIMIT


def test_noise_is_gumbel() -> None:
    noise = gumbel_for_all(torch.arange(50), torch.arange(50) % 3, torch.arange(50), 4000).double()
    assert bool(noise.isfinite().all())
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - np.pi**2 / 6) < 0.02


def test_noise_of_candidates_is_the_noise_of_all() -> None:
    keys = torch.tensor([5, -1]), torch.tensor([0, 2**32 - 1]), torch.tensor([0, 2**31 - 1])
    whole = gumbel_for_all(*keys, 1001)
    ids = torch.tensor([[0, 1, 2, 3, 1000, 517], [999, 4, 3, 2, 1, 0]])
    found = gumbel(*(key.repeat_interleave(6) for key in keys), ids.flatten())
    assert torch.equal(found.view(2, 6), whole.gather(-1, ids))


PARAMS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, seed=11),
    SamplingParams(temperature=0.7, seed=12, top_p=0.9),
    SamplingParams(temperature=1.3, seed=13, top_k=20, min_p=0.02),
    SamplingParams(temperature=0.0, repetition_penalty=1.5),
    SamplingParams(temperature=1.0, seed=14, presence_penalty=1.0, frequency_penalty=0.5),
    SamplingParams(temperature=1.0, seed=15, min_p=0.1),
]


def test_neighbours_do_not_matter() -> None:
    vocab = 500
    logits = torch.randn(len(PARAMS), vocab, generator=torch.Generator().manual_seed(5)) * 3
    prompt = np.arange(40)

    def sample(rows: list[int]) -> list[int]:
        sampler = Sampler(vocab, CPU)
        for row in rows:
            sampler.add(row, PARAMS[row], prompt, 30)
        return sampler.sample(logits[rows].clone(), rows, [40] * len(rows))

    together = sample(list(range(len(PARAMS))))
    assert sample(list(range(len(PARAMS)))[::-1]) == together[::-1]
    for row in range(len(PARAMS)):
        assert sample([row]) == [together[row]]


def test_a_row_that_comes_back_with_its_output_goes_on_alike() -> None:
    """Penalty counts after preemption or migration are those of the row that stayed."""
    vocab, params = 50, SamplingParams(temperature=1.0, seed=9, frequency_penalty=0.7, repetition_penalty=1.2)
    logits = torch.randn(8, vocab, generator=torch.Generator().manual_seed(6))
    stayed, moved = Sampler(vocab, CPU), Sampler(vocab, CPU)
    stayed.add(0, params, np.array([3, 4]), 2)
    tokens = [3, 4]
    for step in range(8):
        moved.add(step, params, np.array(tokens), 2)
        expected = stayed.sample(logits[step : step + 1].clone(), [0], [len(tokens)])
        assert moved.sample(logits[step : step + 1].clone(), [step], [len(tokens)]) == expected
        moved.free(step)
        stayed.append(0, expected[0])
        tokens += expected


def test_temperature_next_to_zero_is_greedy() -> None:
    sampler = Sampler(3, CPU)
    sampler.add(0, SamplingParams(temperature=1e-45, seed=1), np.array([0]), 1)
    assert sampler.sample(torch.tensor([[1.0, 1.01, -50.0]]), [0], [1]) == [1]


def test_greedy_takes_the_first_of_equals() -> None:
    sampler = Sampler(4, CPU)
    sampler.add(2, SamplingParams(temperature=0.0), np.array([0]), 1)
    assert sampler.sample(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), [2], [1]) == [1]


def test_every_bit_of_a_seed_a_sequence_and_a_position_counts() -> None:
    seeds = torch.tensor([0, *(1 << bit for bit in range(63)), -(1 << 63)])
    none = torch.zeros_like(seeds)
    noise = gumbel_for_all(seeds, none, none, 8)
    assert len({tuple(row) for row in noise.tolist()}) == len(seeds)
    places = torch.tensor([0, *(1 << bit for bit in range(32))])
    none = torch.zeros_like(places)
    noise = gumbel_for_all(none, none, places, 8).tolist()
    noise += gumbel_for_all(none[:-1], places[:-1], none[:-1], 8).tolist()[1:]
    assert len({tuple(row) for row in noise}) == 2 * len(places) - 2
