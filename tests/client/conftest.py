"""A scripted server for each test, and its client."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from scripted_inference import ScriptedInference, ServerThread


@pytest.fixture
def servicer() -> ScriptedInference:
    return ScriptedInference()


@pytest.fixture
def server(servicer: ScriptedInference) -> Iterator[ServerThread]:
    thread = ServerThread(servicer)
    thread.start()
    yield thread
    thread.stop()
