"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled to machine code for Ampere and Hopper.

Both need a process of their own: whether Triton interprets is decided when the kernels are first imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headway.kernels.variants import CAPABILITIES, variants

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


def test_every_kernel_has_a_variant() -> None:
    """Every function that is launched on a grid, anywhere in kernels/, is among those that are built."""
    launched = {
        name
        for path in (HERE.parents[1] / "kernels").glob("*.py")
        for name in re.findall(r"^\s*(\w+_kernel)\[", path.read_text(), re.MULTILINE)
    }
    built = {variant.kernel.__name__ for capability in CAPABILITIES for variant in variants(capability)}
    assert launched == built


@pytest.mark.timeout(300)
def test_every_variant_builds_and_none_spills(tmp_path: Path) -> None:
    table = run("-m", "headway.kernels.variants", TRITON_CACHE_DIR=str(tmp_path))
    built = [line.split() for line in table.splitlines()[1:]]
    assert {row[-4] for row in built} == {"80", "90"}
    assert all(row[-2] == "0" for row in built), table
