"""A scripted server for each test, and its client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread


@pytest.fixture
def servicer() -> ScriptedInference:
    return ScriptedInference()


@pytest.fixture
def server(servicer: ScriptedInference) -> Iterator[ServerThread]:
    thread = ServerThread(servicer)
    thread.start()
    yield thread
    thread.stop()
