"""Tensors that do not lie in one piece: an operation is right all the same, or refuses them by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from headway.kernels.attention_decode import attention_decode, attention_decode_reference
from headway.kernels.attention_prefill import attention_prefill, plan_tiles
from headway.kernels.kv_pages import KvPages
from headway.kernels.linear_invariant import linear_invariant
from headway.kernels.linear_w4a16 import linear_w4a16, pack
from headway.kernels.linear_w8a8 import linear_w8a8
from headway.kernels.penalties import Penalty, penalize
from headway.kernels.rms_norm import add_rms_norm, rms_norm
from headway.kernels.rope_kv_write import rope_kv_write
from headway.kernels.sample import Draws, sample
from headway.kernels.swiglu import swiglu
from headway.kernels.vocab_embedding import vocab_embedding


def spread(x: Tensor) -> Tensor:
    """The same numbers, every other one in memory."""
    return torch.stack((x, torch.full_like(x, 3)), -1)[..., 0]


def own(x: Tensor) -> Tensor:
    """One to be changed in place."""
    return x.clone() if x.is_contiguous() else x


PAGES = KvPages(torch.randn(4, 16, 2, 32), torch.randn(4, 16, 2, 32))
TABLES, LENGTHS = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32), torch.tensor([20, 30], dtype=torch.int32)
QUERY = torch.randn(2, 4, 32)
TILES = plan_tiles([0, 1], [1, 1], [20, 30], 1).to(QUERY.device)
ROWS, WEIGHT, VECTOR = torch.randn(3, 128), torch.randn(6, 128), torch.rand(128)
NARROW, SCALES = torch.randint(-9, 9, (6, 128)).to(torch.int8), torch.rand(6)
FOUR = pack(torch.randint(0, 16, (6, 128)), torch.rand(6, 1), torch.ones(6, 1))
DRAWS = Draws(
    *(torch.zeros(3, dtype=kind) for kind in (torch.float32, torch.int32, *[torch.float32] * 2)), *[torch.arange(3)] * 3
)


def decode(query: Tensor, tables: Tensor, lengths: Tensor) -> Tensor:
    return attention_decode(query, PAGES, tables, lengths, 0.2, longest=32)


def prefill(query: Tensor, tables: Tensor, tiles: Tensor, out: Tensor) -> Tensor:
    attention_prefill(query, PAGES, tables, tiles, 0.2, out)
    return out


def added(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
    return add_rms_norm(x, own(residual), weight, 1e-5)


def turned(qkv: Tensor, cos: Tensor, positions: Tensor, slots: Tensor) -> Tensor:
    return rope_kv_write(qkv, cos, cos, positions, slots, KvPages(*(part.clone() for part in PAGES[:2])), 4)


def penalized(logits: Tensor, seen: Tensor, output: Tensor) -> Tensor:
    logits = own(logits)
    penalize(logits, [Penalty(1, seen, output, 1.5, 0.5, 0.5)])
    return logits


def drawn(logits: Tensor, seed: Tensor) -> Tensor:
    return sample(logits, DRAWS._replace(temperature=torch.ones(3), top_p=torch.ones(3), seed=seed), filtered=False)


def eight(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return linear_w8a8(x, weight, scales)


def four(x: Tensor, words: Tensor, scales: Tensor) -> Tensor:
    return linear_w4a16(x, FOUR._replace(words=words, scales=scales))


CASES: list[tuple[Callable[..., Tensor], list[Tensor], str]] = [
    (decode, [QUERY, TABLES, LENGTHS], "tables lengths"),
    (prefill, [QUERY, TABLES, TILES, torch.empty(2, 128)], "tables tiles out"),
    (lambda x, weight: rms_norm(x, weight, 1e-5), [ROWS, VECTOR], "weight"),
    (added, [ROWS, ROWS, VECTOR], "residual weight"),
    (turned, [torch.randn(2, 8, 32), torch.rand(9, 32), torch.tensor([3, 7]), torch.tensor([9, 20])],
     "qkv cos positions slots"),
    (lambda ids, table: vocab_embedding(ids, table, 1), [torch.tensor([1, 4]), WEIGHT], "token_ids table"),
    (drawn, [ROWS, torch.tensor([1, 2, 3])], "logits seed"),
    (penalized, [ROWS, VECTOR > 0.5, VECTOR], "logits seen output"),
    (eight, [ROWS, NARROW, SCALES], "weight weight_scale"),
    (four, [ROWS, FOUR.words, FOUR.scales], "words scales"),
    (linear_invariant, [ROWS, WEIGHT], "weight"),
    (swiglu, [ROWS], ""),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "arguments", "refused"), CASES)
def test_each_argument_in_turn(operation: Callable[..., Tensor], arguments: list[Tensor], refused: str) -> None:
    wanted = operation(*arguments)
    names = refused.split()
    first = len(arguments) - len(names)
    for at, argument in enumerate(arguments):
        asked = [spread(argument) if at == index else other for index, other in enumerate(arguments)]
        if at < first:
            torch.testing.assert_close(operation(*asked), wanted)
        else:
            with pytest.raises(ValueError, match=f"{names[at - first]} must be contiguous"):
                operation(*asked)


def test_a_part_of_a_wider_block_table() -> None:
    found = decode(QUERY, torch.cat((TABLES, TABLES), 1)[:, :2], LENGTHS)
    torch.testing.assert_close(found, attention_decode_reference(QUERY, PAGES, TABLES, LENGTHS, 0.2))
