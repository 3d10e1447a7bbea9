"""The interpreted tests run in a process of their own: Triton decides at import whether it interprets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from headway.kernels.native import AVAILABLE, native

KERNELS_RUN = os.environ.get("TRITON_INTERPRET") == "1" or os.environ.get("HEADWAY_KERNEL_TESTS") == "cuda"
collect_ignore = [] if KERNELS_RUN else ["interpreted"]

SETS = native.instruction_sets() if AVAILABLE else []
BFLOAT16_ALONE = ("amx_bf16", "avx512_bf16")  # differ from avx512 in products, and amx in attention, of bfloat16


@pytest.fixture(params=[name for name in SETS if name not in BFLOAT16_ALONE])
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, in use: for what is neither products nor attention in bfloat16."""
    native.use(request.param)
    yield request.param
    native.use(SETS[0])


@pytest.fixture(params=SETS)
def products(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same, with those that only products and attention in bfloat16 know."""
    native.use(request.param)
    yield request.param
    native.use(SETS[0])
