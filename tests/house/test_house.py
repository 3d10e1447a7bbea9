"""The house rules that a machine can hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.split() if (ROOT / line).exists()]


def test_stubs_are_current() -> None:
    done = subprocess.run([sys.executable, "-m", "headway.proto.generate", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_protos_are_lint_clean() -> None:
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([str(buf), "lint"], cwd=ROOT / "proto", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_layers_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["headway.worker.group", "headway.worker.__main__", "headway.kernels"])
def test_the_worker_needs_no_ray(module: str) -> None:
    block = f"import sys; sys.modules['ray'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_group_is_checked_without_torch() -> None:
    """The controller does it."""
    block = "import sys; sys.modules['torch'] = None; from headway.worker.group import check_group"
    subprocess.run([sys.executable, "-c", block], check=True)


def test_the_router_needs_no_torch_and_no_ray() -> None:
    block = "import sys; sys.modules['ray'] = sys.modules['torch'] = None; import headway.router.app"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_unpickles_what_came_over_a_wire() -> None:
    """Pickle on sockets is the field's most repeated remote-code hole; checkpoints are safetensors only."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked("*.py")
        if not str(path.relative_to(ROOT)).startswith(("tests/", "tools/"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"^\s*(import|from)\s+(pickle|cloudpickle|dill|marshal|shelve)\b", line) or "torch.load(" in line
    ]
    assert not found
