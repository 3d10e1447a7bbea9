"""Scripted engines for each test, and a router over them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from rig import Rig
from scripted_engine import ScriptedEngine


@pytest.fixture
async def new_engine() -> AsyncIterator[Callable[..., Awaitable[ScriptedEngine]]]:
    """Starts engines; ends those that a test left running."""
    engines: list[ScriptedEngine] = []

    async def start(*args: object, **kwargs: object) -> ScriptedEngine:
        engine = ScriptedEngine(*args, **kwargs)
        engines.append(engine)
        return await engine.start()

    yield start
    for engine in engines:
        await engine.die()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.fleet.close()
