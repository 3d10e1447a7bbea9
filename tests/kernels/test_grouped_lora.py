"""Low-rank updates by adapter: the definition, and the same bits whatever shares the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.kernels.grouped_lora import (
    LoraGroup,
    LoraPiece,
    grouped_lora,
    grouped_lora_reference,
    pack_down,
)

WIDTHS = (24, 8, 8)  # of a fused output, as queries, keys and values are


def adapter(seed: int, inputs: int, ranks: tuple[int, int, int]) -> tuple[torch.Tensor, list[LoraPiece]]:
    """Random matrices for the three projections; rank 0 leaves one out."""
    generator = torch.Generator().manual_seed(seed)
    pieces, first, start = [], 0, 0
    for width, rank in zip(WIDTHS, ranks, strict=True):
        if rank:
            up = torch.randn(rank, width, generator=generator)
            pieces.append(LoraPiece(start, start + width, first, first + rank, up))
        first, start = first + rank, start + width
    return pack_down(torch.randn(inputs, first, generator=generator)), pieces


ranks = st.tuples(*[st.integers(0, 9)] * 3).filter(any)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=40), st.lists(ranks, min_size=4, max_size=4), st.data())
def test_every_token_gets_its_own_adapter_with_the_bits_that_it_gets_alone(owners, shapes, data):
    inputs = data.draw(st.sampled_from([16, 48, 256]))
    adapters = [adapter(seed, inputs, shape) for seed, shape in enumerate(shapes)]
    generator = torch.Generator().manual_seed(len(owners))
    x = torch.randn(len(owners), inputs, generator=generator)
    base = torch.randn(len(owners), sum(WIDTHS), generator=generator)

    def group(slot: int, tokens: list[int]) -> LoraGroup:
        whole = tokens == list(range(len(owners)))
        return LoraGroup(None if whole else torch.tensor(tokens), *adapters[slot])

    groups = [
        group(slot, [token for token, owner in enumerate(owners) if owner == slot])
        for slot in sorted(set(owners) - {-1})
    ]
    got = grouped_lora(base.clone(), x, groups)
    assert torch.allclose(got, grouped_lora_reference(base, x, groups), rtol=1e-4, atol=1e-4)
    for token, owner in enumerate(owners):
        alone = base[token : token + 1].clone()
        if owner >= 0:
            grouped_lora(alone, x[token : token + 1], [LoraGroup(None, *adapters[owner])])
        assert torch.equal(got[token], alone[0])


@pytest.mark.parametrize("inputs, outputs", [(64, 96), (768, 768), (2048, 512)])
@pytest.mark.parametrize("rank", [1, 2, 8, 16, 64])
def test_real_widths_give_the_same_bits_in_any_number(inputs, outputs, rank):
    torch.manual_seed(inputs + rank)
    down, up = pack_down(torch.randn(inputs, rank)), torch.randn(rank, outputs)
    x, base = torch.randn(130, inputs), torch.randn(130, outputs)
    pieces = [LoraPiece(0, outputs, 0, rank, up)]
    whole = grouped_lora(base.clone(), x, [LoraGroup(torch.arange(130), down, pieces)])
    for count in (1, 2, 3, 7, 16, 33, 65, 127):
        some = grouped_lora(base.clone(), x, [LoraGroup(torch.arange(count), down, pieces)])
        assert torch.equal(some[:count], whole[:count])
        assert torch.equal(some[count:], base[count:])
