"""The GPU benchmark is whole: every part of it runs at tiny sizes without a GPU, and without Ray."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from headway.benchmarks.device.profile import Span, kind_of, shares

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"


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
    tiny = [row for row in rows if row.split("|")[1].strip() == "tiny"]
    assert len(tiny) == 3 + 2 + 1, "workloads, decode sweeps, and where the time goes"
    assert "Nothing has been measured" in PAGE.read_text() or "TFLOP/s" in PAGE.read_text(), "the check writes nothing"


def test_tables_take_the_place_of_the_last_ones() -> None:
    put_into = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))["put_into"]
    page = PAGE.read_text()
    once = put_into(page, "| first |")
    assert "| first |" in once and "Nothing has been measured" not in once
    assert put_into(once, "| second |") == put_into(page, "| second |")
    assert once.startswith(page[: page.index("<!--")]) and once.endswith(page[page.index("<!-- to here") :])
    with pytest.raises(ValueError, match="no place"):
        put_into("# A page", "| first |")


def test_shares_of_the_device_s_time() -> None:
    spans = [Span("ampere_bf16_gemm", 0, 40), Span("decode_kernel", 50, 60), Span("add", 55, 65), Span("odd", 90, 100)]
    found = shares(spans)
    assert found is not None and sum(found.values()) == pytest.approx(1.0)
    # Of 20 to 90: a product until 40, attention 50 to 60, something else until 65.
    assert found["products"] == pytest.approx(20 / 70) and found["attention"] == pytest.approx(10 / 70)
    assert found["rest"] == pytest.approx(5 / 70) and found["idle"] == pytest.approx(35 / 70)
    assert shares([]) is None
    names = {
        "nvjet_tst_128": "products",
        "floor_kernel": "sampling",
        "Memcpy HtoD": "copies",
        "rms_norm_kernel": "rest",
    }
    assert {name: kind_of(name) for name in names} == names


def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        return
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
