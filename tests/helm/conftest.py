"""Rendered charts: Helm runs once, beside the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.tests.helm.support.manifests import Manifests
from headway.tests.helm.support.value_sets import VALUE_SETS

CHART = Path(__file__).parents[2] / "helm" / "headway"


class Helm:
    """Asks the Helm process; see helm_process.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        # Helm's client allows itself five calls a second, so that a render takes some.
        self._rendered: dict[str, dict[str, Any]] = {}

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"chart": str(CHART), **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Helm process ended; see its stderr"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def render(self, values: dict[str, Any]) -> Manifests:
        """Manifests of these values, rendered once; each caller gets objects of its own."""
        key = json.dumps(values, sort_keys=True)
        answer = self._rendered.get(key) or self.ask(values=values)
        assert "error" not in answer, answer["error"]
        self._rendered[key] = answer
        return Manifests(answer["manifest"], answer["notes"])

    def refusal(self, values: dict[str, Any]) -> str:
        answer = self.ask(values=values)
        assert "error" in answer, "Helm installed values that it should have refused"
        return str(answer["error"])


@pytest.fixture(scope="session")
def helm() -> Iterator[Helm]:
    command = [sys.executable, "-m", "headway.tests.helm.support.helm_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Helm(process)
        assert process.stdin is not None
        process.stdin.close()
        # The Go runtime may take its time; nothing is lost.
        process.kill()


@pytest.fixture(scope="session", params=sorted(VALUE_SETS))
def manifests(request: pytest.FixtureRequest, helm: Helm) -> Manifests:
    """The chart with each of the value sets."""
    return helm.render(VALUE_SETS[request.param])
