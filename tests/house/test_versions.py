"""`make PYTHON=...` and `make TORCH=...`: never the versions of an environment that was made for others."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A `make test` around this one hands down what it was asked for.
    ours = {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "TORCH", "VENV"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_another_python_than_the_environment_s_is_noticed() -> None:
    assert make("same-python", f"VENV={sys.prefix}").returncode == 0
    assert make("same-python", f"VENV={sys.prefix}", f"PYTHON={sys.executable}").returncode == 0
    assert make("same-python", "VENV=none", "PYTHON=none").returncode == 0, "there is none to differ from"
    other = make("install-dev", f"VENV={sys.prefix}", "PYTHON=echo Python 3.99.0")
    assert other.returncode != 0 and "3.99.0" in other.stderr and f"{sys.prefix} holds Python 3.1" in other.stderr


def test_another_torch_has_its_own_environment() -> None:
    told = make("--dry-run", "--always-make", "install", "TORCH=2.11.0").stdout
    assert 'TORCH="2.11.0" tools/install.sh .venv-torch-2.11.0 "."' in told
    assert "torch-" not in make("--dry-run", "--always-make", "install").stdout
