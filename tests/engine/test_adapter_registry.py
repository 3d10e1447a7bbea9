"""The registry of adapters without a worker: whatever becomes of a call, each number that ranks may have read is told
off in the end, once."""

import asyncio
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

from headway.core.errors import ConfigError, InvalidRequest
from headway.worker.adapters.rank import RankAdapters
from headway.worker.engine import Command, Forget
from headway.worker.plan import FORGET
from headway.worker.service.adapters import AdapterRegistry


class SlowLoader:
    """Reads when it is let; a path with "bad" in it cannot be used."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.numbers = 0

    def next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    def revision(self, path: Path) -> str:
        return path.name

    def load(self, number: int, path: Path) -> tuple[str, int]:
        self.begun.set()
        self.go.wait(10)
        if "bad" in path.name:
            raise ConfigError(f"{path} is bad")
        return path.name, 8


def told_off(inbox: SimpleQueue[Command]) -> list[int]:
    found = []
    while not inbox.empty():
        command = inbox.get()
        assert isinstance(command, Forget)
        found.append(command.adapter)
    return found


async def test_numbers_of_loads_that_come_to_nothing() -> None:
    loader, inbox = SlowLoader(), SimpleQueue()
    registry = AdapterRegistry("base", loader, inbox, lambda held: None)
    call = asyncio.create_task(registry.load("a", "/there/a"))
    await asyncio.to_thread(loader.begun.wait, 10)
    call.cancel()  # the caller is gone, and the reading goes on
    with pytest.raises(asyncio.CancelledError):
        await call
    assert told_off(inbox) == [1] and registry.adapters() == []
    loader.go.set()
    with pytest.raises(InvalidRequest, match="bad"):
        await registry.load("a", "/there/bad")
    assert told_off(inbox) == [2]
    await registry.load("a", "/there/a")
    await registry.load("a", "/there/a")
    assert told_off(inbox) == [] and loader.numbers == 3
    await registry.load("a", "/there/b")
    assert told_off(inbox) == [3], "what it replaces"
    await registry.unload("a")
    assert told_off(inbox) == [4] and registry.adapters() == []


def test_a_rank_keeps_nothing_of_what_failed(tmp_path: Path) -> None:
    for slots in (0, 2):
        rank = RankAdapters([], layers=1, slots=slots, max_rank=8, dtype=torch.float32, device=torch.device("cpu"))
        for number, forgotten_first in ((1, False), (2, True)):
            if forgotten_first:
                rank.apply([(FORGET, number)])
            with pytest.raises(ConfigError):
                rank.read(number, tmp_path / "missing")
            if not forgotten_first:
                rank.apply([(FORGET, number)])
            assert not rank._host and not rank._forgotten and not rank._failed
