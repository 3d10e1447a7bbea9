"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled to machine code for Ampere and Hopper.

Both need a process of their own: whether Triton interprets is decided when the kernels are first imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_every_kernel_interpreted_gives_what_its_reference_gives() -> None:
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/interpreted", TRITON_INTERPRET="1")


@pytest.mark.timeout(300)
def test_every_hot_variant_builds_and_none_spills(tmp_path: Path) -> None:
    table = run("-m", "headway.kernels.variants", TRITON_CACHE_DIR=str(tmp_path))
    built = [line.split() for line in table.splitlines()[1:]]
    assert {row[-4] for row in built} == {"80", "90"}
    assert all(row[-2] == "0" for row in built), table
