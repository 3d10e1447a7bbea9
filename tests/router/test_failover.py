"""Replicas die under requests; clients see a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import Rig, eventually, request, tokens_of
from scripted_engine import ScriptedEngine, expected_tokens

from headway.core.errors import Unavailable
from headway.proto.headway.v1 import sampling_pb2
from headway.router.dispatch import dispatcher

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
PROMPT = [1, 2, 3, 4, 5]


async def running_on(engines: list[ScriptedEngine]) -> ScriptedEngine:
    await eventually(lambda: any(engine.running for engine in engines))
    return next(engine for engine in engines if engine.running)


async def test_a_dead_replica_s_requests_go_on_elsewhere(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine("a", step_s=0.01), await new_engine("b", step_s=0.01)]
    for engine, cached in zip(engines, (3, 5), strict=True):
        engine.cached_tokens = cached
    await rig.connect(*engines)
    task = asyncio.create_task(rig.run(request(count=40)))
    dead = await running_on(engines)
    other = engines[1 - engines.index(dead)]
    await asyncio.sleep(0.1)
    await dead.die()
    chunks = await task
    assert tokens_of(chunks) == expected_tokens(PROMPT, 7, 40)
    assert (chunks[-1].replica_id, chunks[-1].migrations) == (other.replica_id, 1)
    assert {chunk.cached_tokens for chunk in chunks} == {dead.cached_tokens}  # of the first submission
    (submit,) = other.submits
    assert list(submit.token_ids) == PROMPT + expected_tokens(PROMPT, 7, submit.delivered)
    assert 0 < submit.delivered < 40
    assert (submit.max_new_tokens, submit.sampling.seed) == (40, 7)


async def test_a_replica_that_stops_before_its_requests_end_is_as_good_as_dead(rig: Rig, new_engine: NewEngine) -> None:
    """The caller aborted nothing, so it is not told that its request was aborted."""
    engines = [await new_engine("a", step_s=0.01), await new_engine("b", step_s=0.01)]
    await rig.connect(*engines)
    task = asyncio.create_task(rig.run(request(count=40)))
    leaving = await running_on(engines)
    await asyncio.sleep(0.1)
    leaving.accepting = False
    await eventually(lambda: len(rig.catalogue.ready_replicas("m")) == 1)
    leaving.stop_rows()
    chunks = await task
    assert tokens_of(chunks) == expected_tokens(PROMPT, 7, 40)
    assert (chunks[-1].finish_reason, chunks[-1].migrations) == (sampling_pb2.FINISH_REASON_LENGTH, 1)
    assert leaving.aborts == []


async def test_the_only_replica_may_come_back(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine(step_s=0.01)
    await rig.connect(engine)
    task = asyncio.create_task(rig.run(request(count=30)))
    await eventually(lambda: engine.running)
    await engine.die()
    await asyncio.sleep(0.3)
    assert not task.done()
    await engine.start()
    chunks = await task
    assert tokens_of(chunks) == expected_tokens(PROMPT, 7, 30)
    assert chunks[-1].migrations == 1


async def test_patience_ends(new_engine: NewEngine) -> None:
    rig = Rig(failover_patience_s=0.4)
    engine = await new_engine(step_s=0.01)
    await rig.connect(engine)
    task = asyncio.create_task(rig.run(request(count=1000)))
    await eventually(lambda: engine.running)
    await engine.die()
    with pytest.raises(Unavailable) as caught:
        await task
    assert caught.value.retry_after_s
    await rig.fleet.close()


async def test_abort_reaches_a_request_that_waits_for_a_replica(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine(step_s=0.01)
    await rig.connect(engine)
    task = asyncio.create_task(rig.run(request("mine", count=1000)))
    await eventually(lambda: engine.running)
    await engine.die()
    await asyncio.sleep(0.1)
    assert rig.dispatcher.abort("mine")
    assert (await task)[-1].finish_reason == sampling_pb2.FINISH_REASON_ABORTED


async def test_a_full_replica_does_not_end_a_request_that_was_running(rig: Rig, new_engine: NewEngine) -> None:
    first, second = await new_engine("a", step_s=0.01), await new_engine("b", step_s=0.01)
    second.accepting = False
    await rig.connect(first)
    rig.fleet.add_static(second.endpoint)
    await eventually(lambda: second.hellos)
    task = asyncio.create_task(rig.run(request(count=30)))
    await eventually(lambda: first.running)
    second.refuse = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "full")] * 2
    second.accepting = True
    await eventually(lambda: len(rig.catalogue.ready_replicas("m")) == 2)
    await first.die()
    chunks = await task
    assert tokens_of(chunks) == expected_tokens(PROMPT, 7, 30)
    assert len(second.submits) == 3


async def test_a_request_that_kills_replicas_is_given_up(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(f"r{number}") for number in range(4)]
    for engine in engines:
        engine.hold = True
    await rig.connect(*engines)
    task = asyncio.create_task(rig.run(request()))
    for _ in range(3):
        await (await running_on(engines)).die()
    with pytest.raises(Unavailable):
        await task
    assert sum(len(engine.submits) for engine in engines) == 3


async def test_another_revision_never_continues_a_request(rig: Rig, new_engine: NewEngine) -> None:
    old, new = await new_engine("a", step_s=0.01, revision="old"), await new_engine("b", revision="new")
    new.accepting = False
    await rig.connect(old)
    rig.fleet.add_static(new.endpoint)
    task = asyncio.create_task(rig.run(request(count=50)))
    await eventually(lambda: old.running)
    await asyncio.sleep(0.1)
    new.accepting = True
    await eventually(lambda: len(rig.catalogue.ready_replicas("m")) == 2)
    await old.die()
    await asyncio.sleep(0.4)
    assert not new.submits
    await old.start()
    assert tokens_of(await task) == expected_tokens(PROMPT, 7, 50)


FAULTS = st.sampled_from(["die", "break_streams", "skip_reports", "stop_rows", "restart"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.tuples(FAULTS, st.integers(0, 1), st.integers(1, 40)), max_size=6),
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
)
async def test_tokens_are_never_doubled_nor_lost(
    monkeypatch: pytest.MonkeyPatch, faults: list[tuple[str, int, int]], counts: list[int]
) -> None:
    """Whatever breaks, whenever: every stream has exactly the tokens of an undisturbed run."""
    # Faults come faster here than a busy machine makes tokens; to give up after three in a row is promised elsewhere.
    monkeypatch.setattr(dispatcher, "MOST_LOSSES", 100)
    rig = Rig(failover_patience_s=20.0)
    engines = [await ScriptedEngine(name, step_s=0.003).start() for name in ("a", "b")]
    try:
        await rig.connect(*engines)
        requests = [request(f"q{n}", prompt=[n, n + 1], count=count, seed=n) for n, count in enumerate(counts)]
        tasks = [asyncio.create_task(rig.run(item)) for item in requests]
        for fault, number, delay_ms in faults:
            await asyncio.sleep(delay_ms / 1e3)
            await inflict(fault, engines[number])
        for engine in engines:
            if engine.dead:
                await engine.start()
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 60)
    finally:
        for engine in engines:
            await engine.die()
        await rig.fleet.close()
    for number, (count, chunks) in enumerate(zip(counts, answers, strict=True)):
        assert tokens_of(chunks) == expected_tokens([number, number + 1], number, count)
        assert chunks[-1].finish_reason == sampling_pb2.FINISH_REASON_LENGTH


async def inflict(fault: str, engine: ScriptedEngine) -> None:
    if fault == "restart":
        await engine.die()
        await engine.start()
    elif fault == "die":
        await engine.die()
    elif not engine.dead:
        getattr(engine, fault)()
