"""Adapters as the router sees them: called as models, sent where they are held, never mixed in caches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from rig import Rig, eventually, request, tokens_of
from scripted_engine import PAGE_SIZE, ScriptedEngine, expected_tokens

from headway.core.blocks import chain_keys, root_key
from headway.core.errors import NotFound, Unavailable
from headway.proto.headway.v1 import admin_pb2

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
PROMPT = list(range(1, 4 * PAGE_SIZE + 2))


@pytest.fixture
async def engine(new_engine: NewEngine) -> ScriptedEngine:
    return await new_engine("r0")


@pytest.fixture
async def engines(new_engine: NewEngine) -> list[ScriptedEngine]:
    return [await new_engine("r0"), await new_engine("r1")]


async def test_an_adapter_is_a_model_of_its_own(rig: Rig, engine: ScriptedEngine) -> None:
    engine.hold_adapters(sql="a1")
    await rig.connect(engine)
    await eventually(lambda: len(rig.catalogue.models()) == 2)
    base, sql = rig.catalogue.models()
    assert (base.name, base.base, base.revision) == ("m", "", "rev")
    assert (sql.name, sql.base, sql.revision, sql.base_revision) == ("sql", "m", "rev+a1", "rev")
    assert sql.text_assets is base.text_assets
    assert rig.catalogue.get("").name == "m", "without a name the model is meant, not an adapter"

    assert await rig.tokens(request(model="sql", prompt=PROMPT)) == expected_tokens(PROMPT, 7, 8)
    await rig.tokens(request(model="m", prompt=PROMPT))
    adapted, plain = engine.submits
    assert (adapted.adapter.name, adapted.adapter.revision) == ("sql", "a1")
    assert adapted.cache_root == root_key("rev", adapter="a1") != plain.cache_root == root_key("rev")
    assert not plain.HasField("adapter")


async def test_it_comes_and_goes_with_its_replicas(rig: Rig, engines: list[ScriptedEngine]) -> None:
    await rig.connect(*engines)
    with pytest.raises(NotFound):
        rig.catalogue.get("sql")
    engines[1].hold_adapters(sql="a1")
    await eventually(lambda: [replica.replica_id for replica in rig.catalogue.ready_replicas("sql")] == ["r1"])
    for number in range(4):
        await rig.tokens(request(f"q{number}", model="sql"))
    assert not engines[0].submits and len(engines[1].submits) == 4
    engines[0].hold_adapters(sql="a1")
    await eventually(lambda: rig.catalogue.get("sql").ready_replicas == 2)
    for engine in engines:
        engine.hold_adapters()
    await eventually(lambda: len(rig.catalogue.models()) == 1)
    with pytest.raises(NotFound):
        rig.catalogue.get("sql")


async def test_a_replica_that_is_away_or_came_back_without_it(rig: Rig, engine: ScriptedEngine) -> None:
    """While it is away asking again makes sense; once it is back without the adapter, nobody has it."""
    engine.hold_adapters(sql="a1")
    await rig.connect(engine)
    await eventually(lambda: rig.catalogue.ready_replicas("sql"))
    await engine.die()
    await eventually(lambda: not rig.catalogue.ready_replicas("m"))
    with pytest.raises(Unavailable):
        rig.catalogue.get("sql")
    engine.hold_adapters()
    await engine.start()
    await eventually(lambda: rig.catalogue.ready_replicas("m"))
    with pytest.raises(NotFound):
        rig.catalogue.get("sql")


async def test_it_goes_on_where_the_same_revision_is_held(rig: Rig, engines: list[ScriptedEngine]) -> None:
    """Another revision of the adapter would go on with other tokens, and the model itself all the more."""
    engines[0].hold_adapters(sql="a1")
    await rig.connect(*engines)
    await eventually(lambda: rig.catalogue.ready_replicas("sql"))
    async with aclosing(rig.dispatcher.stream(request(model="sql", count=60))) as chunks:
        got = tokens_of([await anext(chunks)])
        engines[1].hold_adapters(sql="a2")
        await engines[0].die()
        await eventually(lambda: [r.adapters for r in rig.fleet.replicas() if r.ready] == [{"sql": "a2"}])
        rest = asyncio.create_task(_rest(chunks))
        await asyncio.sleep(0.2)
        assert not engines[1].submits
        engines[1].hold_adapters(sql="a1")
        got += await rest
    assert got == expected_tokens([1, 2, 3, 4, 5], 7, 60)
    assert engines[1].submits[0].adapter.revision == "a1"


async def _rest(chunks: object) -> list[int]:
    return tokens_of([chunk async for chunk in chunks])  # type: ignore[attr-defined]


async def test_cached_pages_of_the_base_do_not_count_for_an_adapter(rig: Rig, engines: list[ScriptedEngine]) -> None:
    """Each goes where its own pages are."""
    for engine in engines:
        engine.hold_adapters(sql="a1")
    engines[0].store(chain_keys(root_key("rev"), PROMPT, PAGE_SIZE))
    engines[1].store(chain_keys(root_key("rev", adapter="a1"), PROMPT, PAGE_SIZE))
    await rig.connect(*engines)
    await eventually(lambda: rig.catalogue.get("sql").ready_replicas == 2)
    for number in range(3):
        await rig.tokens(request(f"a{number}", model="sql", prompt=PROMPT, count=1))
        await rig.tokens(request(f"m{number}", model="m", prompt=PROMPT, count=1))
    assert {submit.HasField("adapter") for submit in engines[0].submits} == {False}
    assert {submit.HasField("adapter") for submit in engines[1].submits} == {True}


async def test_names_that_are_taken_stay_what_they_were(rig: Rig, new_engine: NewEngine) -> None:
    one, other = await new_engine("r0", model="m"), await new_engine("r1", model="n")
    one.hold_adapters(n="a1", sql="a1")
    other.hold_adapters(m="b1", sql="b1")
    await rig.connect(one, other)
    await eventually(lambda: len(rig.catalogue.models()) == 3)
    assert {model.name: model.base for model in rig.catalogue.models()} == {"m": "", "n": "", "sql": "m"}
    assert [replica.replica_id for replica in rig.catalogue.ready_replicas("sql")] == ["r0"]


async def test_one_that_is_wanted_but_not_held_yet_can_be_asked_for_again(rig: Rig, engine: ScriptedEngine) -> None:
    await rig.connect(engine)
    wanted = admin_pb2.ModelDeployment(name="m", adapters=[admin_pb2.AdapterDeployment(name="sql", path="/a")])
    rig.fleet.apply(admin_pb2.WatchClusterResponse(models=[wanted]))
    with pytest.raises(Unavailable):
        rig.catalogue.get("sql")
    assert rig.catalogue.get("").name == "m"
    wanted.ClearField("adapters")
    rig.fleet.apply(admin_pb2.WatchClusterResponse(models=[wanted]))
    with pytest.raises(NotFound):
        rig.catalogue.get("sql")
