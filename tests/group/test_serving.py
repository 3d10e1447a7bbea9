"""When the leader serves, what the warm-up left behind in a rank is frozen, and adapters are read as before."""

import gc
from collections import deque

import pytest

from headway.worker.group import control
from headway.worker.group.adapters import serve_reads
from headway.worker.group.process import spare_collector


class Leader:
    """Says these things, then is gone."""

    def __init__(self, *messages: control.Message) -> None:
        self.messages = deque(messages)
        self.heard: list[control.Message] = []

    def receive(self) -> control.Message | None:
        return self.messages.popleft() if self.messages else None

    def send(self, message: control.Message) -> None:
        self.heard.append(message)


class Runner:
    @property
    def adapters(self) -> "Runner":
        return self

    def read(self, number: int, path: object) -> tuple[str, int]:
        return f"{path}", number


@pytest.fixture
def collector():
    """As it was, afterwards."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_what_is_there_when_the_leader_serves_is_looked_through_no_more():
    left_behind = [[number] for number in range(10_000)]
    leader = Leader(control.Serving(), control.ReadAdapter(3, "somewhere"))
    serve_reads(leader, Runner(), spare_collector).join(30)
    assert gc.get_freeze_count() > len(left_behind)
    assert leader.heard == [control.AdapterRead(3, "somewhere", 3)]
