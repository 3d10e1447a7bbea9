"""All tests (`make test`): first those without a cluster, several at a time, then those with one, alone.

A test that starts a cluster wants the machine's cores, and looks for what is left in shared memory and among processes:
nothing else may run beside it. Arguments go to pytest in both halves.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

MAX_WORKERS = 4
# A file's tests stay together, for they share what its fixtures start.
PARALLEL = ("-n", "auto", "--dist", "loadfile")
FINE = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def main(arguments: Sequence[str]) -> int:
    """The exit code: of the first half that went wrong, else 0, or 5 as pytest's where no test was chosen at all."""
    # Ctrl-C goes to pytest too, which then takes its clusters down; it is waited for.
    signal.signal(signal.SIGINT, lambda *_: None)
    marks, rest = _marks(arguments)
    halves = {
        "without clusters": [*PARALLEL, "-m", f"{marks}not e2e", *rest],
        # The last -n holds, also after one among the arguments.
        "with clusters": ["-m", f"{marks}e2e", *rest, "-n", "0"],
    }
    codes, lines = [], []
    for name, options in halves.items():
        code, tally = _half(options)
        codes.append(code)
        lines.append(f"{name}: {tally}")
        if code not in (*FINE, pytest.ExitCode.TESTS_FAILED):
            break
    print("\n" + "\n".join(lines), flush=True)
    return next((code for code in codes if code not in FINE), min(codes))


def _marks(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The choice by marks that the arguments hold, to be narrowed, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", dest="marks")
    known, rest = parser.parse_known_args(arguments)
    return (f"({known.marks}) and " if known.marks else ""), rest


def _half(options: Sequence[str]) -> tuple[int, str]:
    """One run of pytest: its exit code, and what came of it."""
    workers = min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    # xdist's own count is of the machine's cores, whatever this process may use of them.
    environment = {"PYTEST_XDIST_AUTO_NUM_WORKERS": str(workers), **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"--junit-xml={report}", *options]
        code = subprocess.run(command, env=environment, check=False).returncode
        return code, _tally(report) if report.exists() else "not run"


def _tally(report: Path) -> str:
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    parts = [f"{passed} passed", *(f"{n} {name}" for name, n in counts.items() if n and name != "tests")]
    return f"{', '.join(parts)} in {float(suite.get('time', 0)):.0f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
