"""The GPU benchmark is whole: every part of it runs at tiny sizes without a GPU, and without Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_all_of_it_at_tiny_sizes() -> None:
    script = f"""
import runpy, sys
sys.modules["ray"] = None  # an import of it fails
sys.argv = ["gpu.py", "--check", "--only", "ceilings", "kernels", "engine"]
runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert {"decode attention bfloat16", "prefill attention", "linear 4-bit", "sample", "tiny"} <= {
        row.split("|")[1].strip() for row in rows
    }
    assert "Error" not in done.stdout, done.stdout


def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        return
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
