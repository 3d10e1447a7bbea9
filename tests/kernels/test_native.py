"""The operations in C against torch's, for every instruction set that this processor has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from headway.kernels.native import AVAILABLE, native
from headway.kernels.paged_attention import attention_reference, paged_attention, plan_attention
from headway.kernels.rms_norm import add_rms_norm, rms_norm_reference
from headway.kernels.rope_kv_write import HeadNorms, KvPages, rope_kv_write, rope_kv_write_reference
from headway.kernels.rotary import rotary_tables
from headway.kernels.swiglu import swiglu

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="built without a C compiler")


@pytest.fixture(params=native.instruction_sets() if AVAILABLE else [])
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    native.use(request.param)
    yield request.param
    native.use(native.instruction_sets()[0])


def test_an_instruction_set_that_is_none() -> None:
    with pytest.raises(ValueError, match="no instruction set mmx"):
        native.use("mmx")


@pytest.mark.parametrize("size", [3, 16, 41, 256])
def test_elementwise(instructions: str, size: int) -> None:
    x, residual, weight = torch.randn(5, size) * 30, torch.randn(5, size), torch.rand(size)
    total = residual + x
    torch.testing.assert_close(add_rms_norm(x, residual, weight, 1e-5), rms_norm_reference(total, weight, 1e-5))
    assert torch.equal(residual, total)
    gate, up = torch.randn(4, size) * 40, torch.randn(4, size)
    gate[0, 0], gate[1, 0], gate[2, 0] = 200, -200, torch.nan
    found = swiglu(torch.cat((gate, up), -1))
    torch.testing.assert_close(found, gate * torch.sigmoid(gate) * up, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dims", [6, 64])
def test_rope_kv_write(instructions: str, dims: int, normed: bool) -> None:
    tables = rotary_tables(torch.rand(dims // 2), 50, torch.float32)
    qkv, positions, slots = torch.randn(3, 8, 64), torch.tensor([0, 7, 49]), torch.tensor([2, 31, 5])
    written, expected = (KvPages(torch.zeros(4, 8, 2, 64), torch.zeros(4, 8, 2, 64)) for _ in range(2))
    norms = HeadNorms(torch.rand(64), torch.rand(64), 1e-6) if normed else None
    query = rope_kv_write(qkv, *tables, positions, slots, written, 4, norms)
    torch.testing.assert_close(query, rope_kv_write_reference(qkv, *tables, positions, slots, expected, 4, norms))
    torch.testing.assert_close(written, expected)


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, count: int) -> torch.Tensor:
    """The last `count` of the queries, where all tokens stand in pages one after the other."""
    pages = torch.arange(keys.shape[0], dtype=torch.int32).unsqueeze(0)
    batch = plan_attention([count], [len(query)], pages, 16, device=CPU, dtype=torch.float32)
    return paged_attention(query[len(query) - count :], keys, values, batch, 0.3)


def test_attention(instructions: str) -> None:
    query, keys, values = torch.randn(90, 6, 32), torch.randn(6, 16, 2, 32), torch.randn(6, 16, 2, 32)
    expected = attention_reference(query, keys.view(96, 2, 32)[:90], values.view(96, 2, 32)[:90], 0.3).float()
    together = attend(query, keys, values, 90)
    torch.testing.assert_close(together, expected, atol=2e-6, rtol=2e-6)
    for count in (1, 2, 7, 40):  # the chunk that a query stands in does not change its bits
        assert torch.equal(attend(query, keys, values, count), together[-count:])


def test_a_key_that_is_not_a_number_shows(instructions: str) -> None:
    query, keys, values = torch.randn(20, 2, 16), torch.randn(2, 16, 1, 16), torch.randn(2, 16, 1, 16)
    keys[0, 9] = torch.nan
    assert attend(query, keys, values, 1).isnan().all()
