"""The handler by itself: what no front shows."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from headway.core.errors import DeadlineExceeded, Internal, InvalidRequest
from headway.router.handler import RequestHandler
from headway.router.validation.request import FieldNames, UserRequest
from headway.tests.fronts.support.scripted_replicas import (
    RecordingObserver,
    ScriptedCatalogue,
    ScriptedDispatcher,
    chunk,
    demo_model,
)


class Rig:
    def __init__(self) -> None:
        self.dispatcher = ScriptedDispatcher()
        self.observer = RecordingObserver()
        self.handler = RequestHandler(ScriptedCatalogue([demo_model()]), self.dispatcher, self.observer)

    async def run(self, request: UserRequest | None = None, deadline: float | None = None) -> int:
        """How many events came."""
        request = request or UserRequest(names=FieldNames({}), prompt=[1, 2])
        events = self.handler.run(request, front="test", method="test", deadline=deadline)
        return len([event async for event in events])


async def expires() -> None:
    rig = Rig()
    rig.dispatcher.script = lambda request: [chunk(100), asyncio.Event()]
    with pytest.raises(DeadlineExceeded):
        await rig.run(deadline=asyncio.get_running_loop().time() + 0.05)
    assert rig.observer.ended_records[0].error == "DEADLINE_EXCEEDED"


def test_a_passed_deadline_is_told_as_one_though_uvloops_timers_fire_early() -> None:
    async def often() -> None:
        await asyncio.gather(*(expires() for _ in range(20)))

    uvloop.run(often())


async def test_a_deadline_that_passed_already_reaches_no_replica() -> None:
    rig = Rig()
    with pytest.raises(DeadlineExceeded):
        await rig.run(deadline=asyncio.get_running_loop().time())
    assert rig.dispatcher.requests == []


async def test_an_abort_before_the_deadline_is_an_abort() -> None:
    rig = Rig()
    rig.dispatcher.script = lambda request: [chunk(100), asyncio.Event()]
    request = UserRequest(names=FieldNames({}), prompt=[1, 2], request_id="a")
    running = asyncio.ensure_future(rig.run(request, deadline=asyncio.get_running_loop().time() + 60))
    await rig.dispatcher.busy()
    assert rig.handler.abort("a")
    assert await running == 4
    assert not rig.handler.abort("a")


async def test_an_abort_before_the_first_token_counts_no_token() -> None:
    rig = Rig()
    rig.dispatcher.script = lambda request: [asyncio.Event()]
    running = asyncio.ensure_future(rig.run(UserRequest(names=FieldNames({}), prompt=[1], request_id="a")))
    await rig.dispatcher.busy()
    rig.handler.abort("a")
    assert await running == 3
    record = rig.observer.ended_records[0]
    assert (record.completion_tokens, record.first_token_at, record.error) == (0, 0.0, "")
    assert rig.observer.calls == ["arrived", "ended"]


async def test_a_stream_that_just_stops_is_our_fault_and_observed() -> None:
    rig = Rig()
    rig.dispatcher.script = lambda request: [chunk(100)]
    with pytest.raises(Internal):
        await rig.run()
    assert rig.observer.ended_records[0].error == "INTERNAL"


async def test_a_refused_request_is_observed_and_reaches_no_replica() -> None:
    rig = Rig()
    with pytest.raises(InvalidRequest):
        await rig.run(UserRequest(names=FieldNames({}), prompt=[]))
    assert rig.observer.calls == ["arrived", "ended"]
    assert rig.observer.ended_records[0].error == "INVALID_REQUEST"
    assert rig.dispatcher.requests == []


async def test_closing_after_the_end_is_no_failure() -> None:
    rig = Rig()
    events = rig.handler.run(UserRequest(names=FieldNames({}), prompt=[1]), front="test", method="test")
    async for event in events:
        if type(event).__name__ == "Finished":
            break
    await events.aclose()
    assert rig.observer.ended_records[0].error == ""
    assert rig.dispatcher.closed_early == []
