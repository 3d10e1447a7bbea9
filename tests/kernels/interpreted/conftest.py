"""Where HEADWAY_KERNEL_TESTS=cuda, the same tests run on a device, for which the kernels are compiled.

All that they make lies there then. `python benchmarks/gpu.py` runs them so, in a process of their own.
"""

from __future__ import annotations

import os

import pytest
import torch

ON_DEVICE = os.environ.get("HEADWAY_KERNEL_TESTS") == "cuda" and torch.cuda.is_available()

# The whole sampler and whole models are on a device in tests/model/test_cuda.py.
collect_ignore = ["test_sampler.py", "test_whole_model.py"] if ON_DEVICE else []

if ON_DEVICE:
    torch.set_default_device("cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if ON_DEVICE else ():
        item.add_marker("gpu")
