"""Replicas as a controller declares them, over a real WatchCluster stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from rig import Rig, eventually, request
from scripted_controller import ScriptedController, replica
from scripted_engine import ScriptedEngine, expected_tokens

from headway.core.errors import InvalidRequest, NotFound, Unavailable
from headway.proto.headway.v1 import admin_pb2
from headway.router.replicas import watch_cluster

NewEngine = Callable[..., Awaitable[ScriptedEngine]]


@pytest.fixture
async def controller() -> AsyncIterator[ScriptedController]:
    controller = await ScriptedController().start()
    yield controller
    await controller.die()


@pytest.fixture
async def watching(rig: Rig, controller: ScriptedController) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(watch_cluster(controller.address, rig.fleet))
    await eventually(lambda: rig.fleet.declared_models)
    yield task
    task.cancel()


def ready_ids(rig: Rig) -> set[str]:
    return {member.replica_id for member in rig.catalogue.ready_replicas("m")}


@pytest.mark.usefixtures("watching")
async def test_only_ready_replicas_get_requests(
    rig: Rig, controller: ScriptedController, new_engine: NewEngine
) -> None:
    engine = await new_engine("a")
    controller.say(replica("a", "", admin_pb2.REPLICA_STATE_PENDING))
    controller.say(replica("a", engine.endpoint, admin_pb2.REPLICA_STATE_LOADING))
    await eventually(lambda: engine.hellos)
    await asyncio.sleep(0.05)
    assert ready_ids(rig) == set()
    controller.say(replica("a", engine.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})
    for state in (admin_pb2.REPLICA_STATE_UNHEALTHY, admin_pb2.REPLICA_STATE_DRAINING):
        controller.say(replica("a", engine.endpoint, state))
        await eventually(lambda: ready_ids(rig) == set())
        controller.say(replica("a", engine.endpoint))
        await eventually(lambda: ready_ids(rig) == {"a"})
    engine.accepting = False
    await eventually(lambda: ready_ids(rig) == set())
    assert len(engine.hellos) == 1


@pytest.mark.usefixtures("watching")
async def test_known_but_not_ready_is_unavailable_and_unknown_is_not_found(
    rig: Rig, controller: ScriptedController, new_engine: NewEngine
) -> None:
    for name in ("m", ""):
        with pytest.raises(Unavailable) as caught:
            rig.catalogue.get(name)
        assert caught.value.retry_after_s
    with pytest.raises(NotFound):
        rig.catalogue.get("other")
    engine = await new_engine("a")
    controller.say(replica("a", engine.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})
    controller.say(removed=("a",))
    await eventually(lambda: not list(rig.fleet.replicas()))
    assert [(model.name, model.ready_replicas) for model in rig.catalogue.models()] == [("m", 0)]
    with pytest.raises(Unavailable):
        rig.catalogue.get("m")
    rig.fleet.declared_models.add("n")
    with pytest.raises(InvalidRequest):
        rig.catalogue.get("")


@pytest.mark.usefixtures("watching")
async def test_a_removed_replica_ends_its_streams_in_peace(
    rig: Rig, controller: ScriptedController, new_engine: NewEngine
) -> None:
    engine = await new_engine("a", step_s=0.01)
    controller.say(replica("a", engine.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})
    running = asyncio.create_task(rig.run(request(count=30)))
    await eventually(lambda: engine.running)
    controller.say(removed=("a",))
    await eventually(lambda: ready_ids(rig) == set())
    chunks = await running
    assert chunks[-1].migrations == 0
    assert [t for chunk in chunks for t in chunk.token_ids] == expected_tokens([1, 2, 3, 4, 5], 7, 30)
    await eventually(lambda: not list(rig.fleet.replicas()))
    controller.say(replica("a", engine.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})


async def test_without_the_controller_the_last_view_stands(
    rig: Rig, controller: ScriptedController, watching: asyncio.Task[None], new_engine: NewEngine
) -> None:
    engine, late = await new_engine("a"), await new_engine("b")
    controller.say(replica("a", engine.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})
    await controller.die()
    assert await rig.tokens(request(count=5)) == expected_tokens([1, 2, 3, 4, 5], 7, 5)
    assert not watching.done()
    controller.snapshot.replicas.extend([replica("a", engine.endpoint), replica("b", late.endpoint)])
    await controller.start()
    await eventually(lambda: ready_ids(rig) == {"a", "b"})
    assert len(engine.hellos) == 1


async def test_the_router_waits_for_a_controller_that_is_not_there_yet(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine("a")
    controller = await ScriptedController().start()
    await controller.die()
    controller.snapshot.replicas.append(replica("a", engine.endpoint))
    task = asyncio.create_task(watch_cluster(controller.address, rig.fleet))
    await asyncio.sleep(0.3)
    assert not task.done()
    await controller.start()
    await eventually(lambda: ready_ids(rig) == {"a"})
    task.cancel()
    await controller.die()


@pytest.mark.usefixtures("watching")
async def test_a_restarted_group_is_found_at_its_new_address(
    rig: Rig, controller: ScriptedController, new_engine: NewEngine
) -> None:
    old = await new_engine("a", step_s=0.01)
    controller.say(replica("a", old.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})
    running = asyncio.create_task(rig.run(request(count=40)))
    await eventually(lambda: old.running)
    await old.die()
    new = await new_engine("a")
    controller.say(replica("a", new.endpoint, incarnation="boot-2"))
    chunks = await running
    assert chunks[-1].migrations == 1
    assert [t for chunk in chunks for t in chunk.token_ids] == expected_tokens([1, 2, 3, 4, 5], 7, 40)


@pytest.mark.usefixtures("watching")
async def test_a_silent_old_incarnation_is_left_when_the_controller_knows_a_newer_one(
    rig: Rig, controller: ScriptedController, new_engine: NewEngine
) -> None:
    frozen = await new_engine("a")
    controller.say(replica("a", frozen.endpoint))
    await eventually(lambda: ready_ids(rig) == {"a"})
    frozen.hold = True
    running = asyncio.create_task(rig.run(request(count=6)))
    await eventually(lambda: frozen.running)
    new = await new_engine("a")
    controller.say(replica("a", new.endpoint, incarnation="boot-2"))
    assert (await running)[-1].migrations == 1
    assert new.submits


@pytest.mark.usefixtures("watching")
async def test_another_replica_on_the_port_is_not_taken_for_ours(
    rig: Rig, controller: ScriptedController, new_engine: NewEngine
) -> None:
    stranger = await new_engine("b")
    controller.say(replica("a", stranger.endpoint))
    await asyncio.sleep(0.3)
    assert ready_ids(rig) == set()
    assert not stranger.hellos
    controller.say(replica("b", stranger.endpoint))
    await eventually(lambda: ready_ids(rig) == {"b"})


async def test_replicas_that_tokenize_differently_are_not_mixed(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(f"r{number}", revision="old") for number in range(2)]
    odd = await new_engine("odd", revision="new")
    odd.files = {"tokenizer.json": b"another"}
    same = await new_engine("same", revision="newer")
    await rig.connect(*engines, odd, same)
    assert rig.catalogue.get("m").revision == "old"
    assert ready_ids(rig) == {"r0", "r1", "same"}
