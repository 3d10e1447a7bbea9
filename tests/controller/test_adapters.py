"""Adapters of a model: wanted by operators, held by every replica, those that come later too."""

import grpc
import pytest
from support.refusals import refused

from headway.controller.adapters import difference
from headway.controller.state import MemoryStore
from headway.proto.headway.v1 import admin_pb2, engine_pb2

Load, Unload, Change = admin_pb2.LoadAdapterRequest, admin_pb2.UnloadAdapterRequest, admin_pb2.Change
pytestmark = pytest.mark.asyncio(loop_scope="session")


def held(up) -> dict[str, dict[str, str]]:
    """Paths by name, by replica, as watchers see them."""
    return {r.id: {a.name: a.path for a in r.adapters} for r in up.controller.view.replicas()}


async def test_every_replica_holds_it_and_later_ones_too(up):
    effect = (await up.admin.LoadAdapter(Load(name="sql", path="/a/sql"))).effect
    assert list(effect.steps) == ["load adapter sql of demo from /a/sql on each replica"]
    # Before a leader's own report comes it may be asked again, which changes nothing.
    assert [set(leader.adapter_calls) for leader in up.supervisor.leaders.values()] == [{"load sql"}, {"load sql"}]
    (model,) = up.controller.view.models()
    assert [(adapter.name, adapter.path) for adapter in model.adapters] == [("sql", "/a/sql")]

    await up.admin.ScaleModel(admin_pb2.ScaleModelRequest(model="demo", replicas=3))
    up.supervisor.leaders["demo-0"].die()
    wanted = {f"demo-{n}": {"sql": "/a/sql"} for n in range(3)}
    await up.until(lambda: held(up) == wanted and up.supervisor.starts["demo-0"] == 2)

    await up.admin.LoadAdapter(Load(name="sql", path="/a/sql-2"))
    await up.until(lambda: held(up) == {f"demo-{n}": {"sql": "/a/sql-2"} for n in range(3)})
    await up.admin.UnloadAdapter(Unload(name="sql"))
    await up.until(lambda: held(up) == {f"demo-{n}": {} for n in range(3)})
    assert not up.controller.view.models()[0].adapters


async def test_one_that_cannot_be_used_changes_nothing(up):
    await up.admin.LoadAdapter(Load(name="sql", path="/a/sql"))
    for name in ("new", "sql"):
        code, text, _ = await refused(up.admin.LoadAdapter(Load(name=name, path="/bad")))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "use_dora = True is not supported" in text
    assert {name: record.path for name, record in up.controller.state.adapters.items()} == {"sql": "/a/sql"}
    await up.until(lambda: held(up) == {"demo-0": {"sql": "/a/sql"}, "demo-1": {"sql": "/a/sql"}})


async def test_a_refusal_by_one_replica_takes_it_from_the_others(up):
    """Nothing is wanted before all have taken it."""
    code, _, field = await refused(up.admin.LoadAdapter(Load(name="sql", path="/bad-for-demo-1")))
    assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "path")
    other = up.supervisor.leaders["demo-0"]
    await up.until(lambda: set(other.adapter_calls) == {"load sql", "unload sql"} and not other.adapters)
    assert not up.controller.state.adapters


@pytest.mark.parametrize(
    "request_, code, text",
    [
        (Load(name="demo", path="/a"), grpc.StatusCode.ALREADY_EXISTS, "a model is called 'demo'"),
        (Load(name="sql", path="a/b"), grpc.StatusCode.INVALID_ARGUMENT, "path must be an absolute path"),
        (Load(name="s q", path="/a"), grpc.StatusCode.INVALID_ARGUMENT, "name must be 1 to 128 letters"),
        (Load(name="", path="/a"), grpc.StatusCode.INVALID_ARGUMENT, "name must be 1 to 128 letters"),
        (Load(name="sql", path="/a", model="nope"), grpc.StatusCode.NOT_FOUND, "there is no model 'nope'"),
    ],
    ids=["model's name", "relative path", "space", "no name", "no model"],
)
async def test_bad_requests(calm, request_, code, text):
    found, message, _ = await refused(calm.admin.LoadAdapter(request_))
    assert found is code and text in message


async def test_dry_runs_unknown_names_and_repeated_keys(up):
    steps = (await up.admin.LoadAdapter(Load(name="sql", path="/bad", change=Change(dry_run=True)))).effect.steps
    assert steps and not up.controller.state.adapters
    assert all(not leader.adapter_calls for leader in up.supervisor.leaders.values())
    code, text, _ = await refused(up.admin.UnloadAdapter(Unload(name="sql")))
    assert code is grpc.StatusCode.NOT_FOUND and "'sql'" in text
    keyed = Load(name="sql", path="/a", change=Change(idempotency_key="k"))
    first, again = (await up.admin.LoadAdapter(keyed)).effect, (await up.admin.LoadAdapter(keyed)).effect
    assert first == again
    code, _, _ = await refused(up.admin.LoadAdapter(Load(name="sql", path="/b", change=keyed.change)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_a_later_replica_cannot_read_is_shown(new_controller):
    """Nobody serves when it is asked for, so nobody can say that it is bad; and a new controller knows it too."""
    store = MemoryStore()
    async with new_controller(replicas=0, store=store) as up:
        await up.admin.LoadAdapter(Load(name="sql", path="/bad"))
        await up.admin.ScaleModel(admin_pb2.ScaleModelRequest(model="demo", replicas=1))
        await up.until(lambda: any(replica.adapter_errors for replica in up.controller.view.replicas()))
        (replica,) = up.controller.view.replicas()
        assert replica.state == admin_pb2.REPLICA_STATE_READY
        assert "use_dora" in replica.adapter_errors["sql"]
        await up.admin.UnloadAdapter(Unload(name="sql"))
        await up.until(lambda: not up.controller.view.replicas()[0].adapter_errors)
    assert (await store.load()).adapters == {}


async def test_the_difference_is_by_name_and_path():
    have = [engine_pb2.Adapter(name=name, path=path) for name, path in (("a", "/1"), ("b", "/2"), ("c", "/3"))]
    gap = difference({"a": "/1", "b": "/9", "d": "/4", "e": "/5"}, have, {"e"})
    assert gap.load == {"b": "/9", "d": "/4"} and gap.unload == ["c"]
