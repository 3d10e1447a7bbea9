"""A router that sends more than is worked off, or fetches nothing, is not read: nothing piles up on its behalf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from headway.core.errors import Overloaded
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_ABORTED, FINISH_REASON_UNSPECIFIED
from headway.worker.engine import Figures, Output, Refused, StepReport
from headway.worker.service import servicer
from headway.worker.service.hub import Hub

MOST = 20


class Flood:
    """Aborts without end, as fast as they are taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def requests(self) -> AsyncIterator[engine_pb2.SessionRequest]:
        while True:
            self.sent += 1
            yield engine_pb2.SessionRequest(abort=engine_pb2.AbortSequence(id=self.sent))


async def settled(flood: Flood) -> int:
    """How much was sent once nothing more is."""
    before = -1
    while flood.sent != before:
        before = flood.sent
        await asyncio.sleep(10 * servicer.BEHIND_S)
    return before


async def test_a_stream_is_not_read_while_the_engine_or_the_router_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "MOST_COMMANDS", MOST)
    monkeypatch.setattr(servicer, "MOST_UNREAD", MOST)
    inbox: SimpleQueue[Any] = SimpleQueue()
    hub = Hub("incarnation", inbox, lambda: 0.0, Figures())
    session, _ = hub.join(engine_pb2.Hello(router_id="router"))
    flood = Flood()
    reading = asyncio.create_task(servicer._read(SimpleNamespace(hub=hub), session, flood.requests()))  # type: ignore[arg-type]
    assert await settled(flood) == inbox.qsize() == MOST + 1, "the engine takes nothing"
    for _ in range(10):
        inbox.get()
    assert await settled(flood) == MOST + 11
    refused = [Refused(number, Overloaded("full")) for number in range(MOST + 1)]
    hub.publish(StepReport({}, {}, {session.number: refused}, {}, [], Figures()))
    while not inbox.empty():
        inbox.get()
    assert await settled(flood) == MOST + 11, "the router fetches nothing"
    assert len((await session.outbox.take()).refusals) == MOST + 1
    assert await settled(flood) > MOST + 11
    hub.leave(session)
    await asyncio.wait_for(reading, 5)


async def test_the_grammar_of_what_has_ended_is_not_waited_for() -> None:
    """Else a router that is refused submits on, and what compiles for it has no bound."""
    hub = Hub("incarnation", SimpleQueue(), lambda: 0.0, Figures())
    session, _ = hub.join(engine_pb2.Hello(router_id="router"))
    session.compiling = {number: asyncio.create_task(asyncio.Event().wait()) for number in range(4)}  # type: ignore[misc]
    tasks = session.compiling.copy()
    aborted = Output(1, [], FINISH_REASON_ABORTED, None, None, 0)
    news = Output(2, [5], FINISH_REASON_UNSPECIFIED, None, 0, 0)
    refused = [Refused(0, Overloaded("full")), Refused(9, Overloaded("full"))]
    hub.publish(StepReport({session.number: [aborted, news]}, {}, {session.number: refused}, {}, [], Figures()))
    await asyncio.sleep(0)
    assert [task.cancelled() for task in tasks.values()] == [True, True, False, False]
    hub.leave(session)
    await asyncio.sleep(0)
    assert all(task.cancelled() for task in tasks.values())
