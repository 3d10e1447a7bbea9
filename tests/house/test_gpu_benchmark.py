"""The GPU benchmark is whole: every part of it runs at tiny sizes without a GPU, and without Ray."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from headway.benchmarks.device import end_to_end, kernels, processes
from headway.benchmarks.device.processes import TABLES_OF_MODELS, Found, all_units
from headway.benchmarks.device.profile import Span, shares
from headway.benchmarks.device.profile_kinds import kind_of
from headway.benchmarks.device.report import Row, markdown
from headway.benchmarks.device.work import Work
from headway.benchmarks.device.workloads import QWEN3_600M
from headway.worker.execution.step_work import step_work
from headway.worker.plan import RowWork

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"


def check(tmp_path: Path, *arguments: str, **absent: str) -> str:
    """What a run at tiny sizes prints where `absent` packages cannot be imported."""
    for name in ("ray", *absent.values()):
        (tmp_path / f"{name}.py").write_text("raise ImportError('absent')")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--check", "--only", *arguments]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(page: str) -> list[str]:
    return [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]


def test_all_of_it_at_tiny_sizes(tmp_path: Path) -> None:
    page = check(tmp_path, "ceilings", "kernels", "engine")
    assert {"decode attention bfloat16", "prefill attention", "linear 4-bit", "sample", "tiny"} <= set(names(page))
    assert "Error" not in page and "left out" not in page, page
    assert names(page).count("tiny") == 3 + 2 + 1, "workloads, decode sweeps, and where the time goes"
    assert "no GPU: figures mean nothing" in page and "Ceilings: copy" in page
    assert "Nothing has been measured" in PAGE.read_text() or "TFLOP/s" in PAGE.read_text(), "the check writes nothing"


def test_what_is_missing_is_named_and_takes_nothing_else_along(tmp_path: Path) -> None:
    page = check(tmp_path, "kernels", "engine", absent="msgspec")
    assert {"decode attention bfloat16", "sample", "tiny"} <= set(names(page))
    assert page.count("left out for want of packages: msgspec") == len(TABLES_OF_MODELS)


TESTS = """
import os, time, pytest
pytestmark = pytest.mark.gpu
def test_falls():
    assert False
def test_stays():
    time.sleep(max(0, float(os.environ["HEADWAY_TESTS_UNTIL"]) + 0.1 - time.monotonic()))
@pytest.mark.parametrize("number", range(30))
def test_late(number): ...
def test_hangs():
    time.sleep(60)
"""


def test_tests_tell_what_they_found_when_their_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what fails, what hangs, and what is not begun any more."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_it.py").write_text(TESTS)
    script = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
    run, its = script["_pytest"], script["_pytest"].__globals__
    monkeypatch.setitem(its, "ROOT", tmp_path)
    said = run(folder, time.monotonic() + 8)
    assert said.startswith("tests: exit code 1") and "test_falls FAILED" in said, said
    assert "1 failed, 1 passed, 31 skipped" in said, said
    monkeypatch.setitem(its, "HUNG_S", 8.0)
    (folder / "conftest.py").unlink()
    said = run(folder, time.monotonic())
    assert said.startswith("tests: killed in the middle of a test") and "test_falls FAILED" in said, said
    assert "test_hangs" in said.splitlines()[-1], "the one that hung"


SCRIPT = """
import json, os, signal, sys, time
log, *units = sys.argv[1:]
say = lambda *words: print(json.dumps(words), file=open(log, "a"), flush=True)
if "ceilings" in units:
    say("begin", "ceilings"), say("device", "a device"), say("ceilings", 1.0, 2.0), say("end", "ceilings")
for unit in units:
    if unit == "ceilings":
        continue
    say("begin", unit)
    say("row", unit.split("/")[0], [unit, "a figure"])
    for _ in range(5 if "slow" in unit else 0):
        time.sleep(0.4)
        say("row", unit.split("/")[0], [unit, "one more"])
    if "dies" in unit:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hangs" in unit:
        time.sleep(60)
    say("end", unit)
    if "breaks" in unit:
        sys.exit(3)
"""


def test_a_unit_that_dies_or_hangs_takes_no_other_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ROW_S", 1.0)
    found, begun = Found(), []
    units = ["kernels/one", "kernels/dies", "kernels/breaks", "served/hangs", "served/slow", "decoded/last"]

    def command(left: Sequence[str], log: Path, ceilings: Sequence[float]) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(log), *([] if ceilings else ["ceilings"]), *left]

    processes.run_units(units, command, found, begun.append, time.monotonic() + 30)
    assert begun == ["ceilings", *units] and found.device == "a device" and found.ceilings == [1.0, 2.0]
    assert [row.cells for row in found.rows if row.cells[1] == "a figure"] == [[unit, "a figure"] for unit in units]
    assert ["dies", f"its process died of signal {signal.SIGSEGV.value}"] in [row.cells for row in found.rows]
    assert Row("served", ["hangs", "ended: it took too long"]) in found.rows
    assert [row.cells[1] for row in found.rows].count("one more") == 5, "a unit is hung when no row comes"
    page = markdown(["a head", ""], found.rows)
    assert page.startswith("a head\n\n| kernel |") and "| decoded/last | a figure | | | | | |" in page.replace(
        "  ", " "
    )


def test_the_units_are_those_that_there_are() -> None:
    assert tuple(kernels.FAMILIES) == processes.FAMILIES
    units = all_units(("kernels", "engine"), tiny=False)
    assert {unit.split("/")[1] for unit in units} == {*kernels.FAMILIES, *end_to_end.MODELS} - {"tiny"}


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
        "blocks_kernel": "products",
        "grouped_blocks_kernel": "products",
        "quantize_groups_kernel": "products",
    }
    assert {name: kind_of(name) for name in names} == names


def test_the_operations_of_steps() -> None:
    """Qwen3-0.6B, by hand: 28 layers of 1,024 x (48 heads of 128 + 3 x 3,072) weights, a head of 151,936 x 1,024."""
    work = Work(QWEN3_600M)
    assert work.weights == 28 * 15_728_640 + 155_582_464
    prompt = work.operations(step_work([RowWork(0, 0, 8192, True, [])]))
    layers, head, attention = 2 * 440_401_920 * 8192, 2 * 155_582_464, 4 * 28 * 16 * 128 * (8192 * 8193 // 2)
    assert prompt == layers + head + attention
    assert [round(part / 1e12, 1) for part in (layers, attention, prompt)] == [7.2, 7.7, 14.9]
    chunks = [RowWork(0, 0, 8000, False, []), RowWork(0, 8000, 192, True, [])]
    assert sum(work.operations(step_work([chunk])) for chunk in chunks) == prompt == work.operations(step_work(chunks))
    assert work.operations(step_work([RowWork(0, 1023, 1, True, [])])) == 2 * work.weights + 4 * 28 * 16 * 128 * 1024


def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        return
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
