"""Where HEADWAY_KERNEL_TESTS=cuda, the same tests run on a device, for which the kernels are compiled.

All that they make lies there then. `python benchmarks/gpu.py` runs them so, in a process of their own.

Else Triton's interpreter takes products by numpy, and numpy by BLAS, which on some processors gives a row other bits at
another place of a tile. No device does so: the interpreter gets a product whose sums all go one way.
"""

from __future__ import annotations

import os
import types
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from triton.runtime import interpreter

ON_DEVICE = os.environ.get("HEADWAY_KERNEL_TESTS") == "cuda" and torch.cuda.is_available()

# The whole sampler and whole models are on a device in tests/model/test_cuda.py.
collect_ignore = ["test_sampler.py", "test_whole_model.py"] if ON_DEVICE else []


class _Numpy(types.ModuleType):
    """numpy with a product of its own."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def matmul(a: npt.NDArray[Any], b: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.einsum("...ij,...jk->...ik", a.astype(dtype), b.astype(dtype))


if ON_DEVICE:
    torch.set_default_device("cuda")
else:
    interpreter.np = _Numpy("numpy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if ON_DEVICE else ():
        item.add_marker("gpu")
