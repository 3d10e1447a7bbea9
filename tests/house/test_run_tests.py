"""`make test`'s two halves, on a folder of tests of our own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "run_tests.py"
TESTS = """
import os
import pytest

def test_alone():
    assert "PYTEST_XDIST_WORKER" in os.environ

@pytest.mark.e2e
def test_cluster():
    assert "PYTEST_XDIST_WORKER" not in os.environ

@pytest.mark.gpu
def test_broken():
    assert False
"""


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (["-n", "1", "-k", "not broken"], 0, ["without clusters: 1 passed", "with clusters: 1 passed"]),
        (["-k", "cluster"], 0, ["without clusters: 0 passed", "with clusters: 1 passed"]),
        ([], 1, ["without clusters: 1 passed, 1 failures", "with clusters: 1 passed"]),
        (["-x", "-m", "gpu"], 2, ["without clusters: 0 passed, 1 failures"]),
        (["-k", "nothing"], 5, ["without clusters: 0 passed", "with clusters: 0 passed"]),
        (["--no-such-flag"], 4, ["without clusters: not run"]),
    ],
)
def test_both_halves_run_and_are_told_together(
    tmp_path: Path, arguments: list[str], code: int, lines: list[str]
) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    e2e\n    gpu\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    lean = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist", "PYTEST_XDIST_AUTO_NUM_WORKERS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment | lean, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    tallies = [line for line in done.stdout.splitlines() if line.startswith("with")]
    assert [line.partition(" in ")[0] for line in tallies] == lines
