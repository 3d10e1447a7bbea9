"""Revisions of a model's settings and the way back to them, over real gRPC with stand-in groups."""

import grpc
import msgspec
import pytest
from support.refusals import refused

from headway.controller.state import DesiredState, MemoryStore, ModelSpec, record_revisions
from headway.proto.headway.v1 import admin_pb2 as pb

# One loop for all: see test_controller.py.
pytestmark = pytest.mark.asyncio(loop_scope="session")


def scale(replicas: int, **change: object) -> pb.ScaleModelRequest:
    return pb.ScaleModelRequest(change=pb.Change(**change), model="demo", replicas=replicas)


def rollback(revision: int = 0, **change: object) -> pb.RollbackModelRequest:
    return pb.RollbackModelRequest(change=pb.Change(**change), model="demo", revision=revision)


async def kept(up) -> list[tuple[int, int, str]]:
    """Number, replicas and change of each revision, newest first."""
    listing = await up.admin.ListRevisions(pb.ListRevisionsRequest(model="demo"))
    return [(each.number, each.model.desired_replicas, each.what) for each in listing.revisions]


async def test_a_rollback_is_a_revision_with_the_settings_of_an_earlier_one(up) -> None:
    await up.admin.ScaleModel(scale(4, reason="launch day"))
    await up.admin.ScaleModel(scale(1))
    effect = (await up.admin.RollbackModel(rollback(reason="too few"))).effect
    assert effect.steps[0] == "set demo back to revision 2: 4 replicas"
    assert await kept(up) == [
        (4, 4, "rollback demo to revision 2"),
        (3, 1, "scale demo to 1"),
        (2, 4, "scale demo to 4"),
        (1, 2, "start"),
    ]
    await up.until(lambda: sorted(up.states().values()) == ["READY"] * 4)
    listing = await up.admin.ListRevisions(pb.ListRevisionsRequest(model="demo"))
    assert [each.reason for each in listing.revisions] == ["too few", "", "launch day", ""]
    times = [each.time.ToNanoseconds() for each in listing.revisions]
    assert times == sorted(times, reverse=True) and times[-1] > 0
    # Once more is back again: the one before is now the one that was left.
    effect = (await up.admin.RollbackModel(rollback())).effect
    assert [step.split()[0] for step in effect.steps] == ["set", "drain", "drain", "drain"]
    effect = (await up.admin.RollbackModel(rollback(1))).effect
    assert effect.steps == ["set demo back to revision 1: 2 replicas", "start 1 replica of demo"]
    assert [(number, replicas) for number, replicas, _ in await kept(up)][:2] == [(6, 2), (5, 1)]
    assert up.controller.state.log[-1].what == "rollback demo to revision 1"


async def test_what_changes_no_settings_is_no_revision(up) -> None:
    before = await kept(up)
    await up.admin.DrainReplica(pb.DrainReplicaRequest(replica_id="demo-0"))
    await up.admin.ScaleModel(scale(2))
    assert (await up.admin.RollbackModel(rollback(1))).effect.steps == []
    await up.until_states(demo_1="READY", demo_2="READY")
    assert await kept(up) == before == [(1, 2, "start")]


async def test_bad_rollbacks_are_refused_by_field(up) -> None:
    code, message, field = await refused(up.admin.RollbackModel(rollback()))
    assert (code, field) == (grpc.StatusCode.FAILED_PRECONDITION, "revision")
    assert "revision 1 is the only one" in message
    await up.admin.ScaleModel(scale(3))
    code, message, field = await refused(up.admin.RollbackModel(rollback(7)))
    assert (code, field) == (grpc.StatusCode.NOT_FOUND, "revision")
    assert "no revision 7; kept: 1 to 2" in message
    nope = pb.RollbackModelRequest(model="nope"), pb.ListRevisionsRequest(model="nope")
    for call in (up.admin.RollbackModel(nope[0]), up.admin.ListRevisions(nope[1])):
        code, message, field = await refused(call)
        assert (code, field) == (grpc.StatusCode.NOT_FOUND, "model")
        assert "served: demo" in message
    code, _, field = await refused(up.admin.RollbackModel(rollback(reason="x" * 1000)))
    assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "change.reason")
    assert up.controller.state.models["demo"].replicas == 3


async def test_the_change_header_holds_for_rollbacks(up) -> None:
    seen = up.controller.view.version
    await up.admin.ScaleModel(scale(3, idempotency_key="s"))
    state = up.controller.state
    dry = (await up.admin.RollbackModel(rollback(dry_run=True))).effect
    assert dry.steps[0] == "set demo back to revision 1: 2 replicas"
    code, *_ = await refused(up.admin.RollbackModel(rollback(expected_version=seen)))
    assert code == grpc.StatusCode.ABORTED
    # As bytes, without their types, the two requests are the same.
    code, _, field = await refused(up.admin.RollbackModel(rollback(3, idempotency_key="s")))
    assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "change.idempotency_key")
    assert up.controller.state.revisions == state.revisions
    first = (await up.admin.RollbackModel(rollback(idempotency_key="r"))).effect
    assert (await up.admin.RollbackModel(rollback(idempotency_key="r"))).effect == first
    assert len(await kept(up)) == 3


async def test_history_outlives_the_controller_and_begins_where_there_was_none(new_controller) -> None:
    store = MemoryStore()
    before = ModelSpec(name="demo", path="/m", replicas=1)
    await store.commit(DesiredState(revision=1, models={"demo": before}))
    async with new_controller(replicas=5, store=store) as first:
        assert await kept(first) == [(1, 1, "start")]
        await first.admin.ScaleModel(scale(2))
    async with new_controller(replicas=5, store=store) as second:
        assert [number for number, *_ in await kept(second)] == [2, 1]
        await second.admin.RollbackModel(rollback())
        await second.until_states(demo_0="READY")


async def test_settings_that_running_groups_could_not_follow_are_not_set_back(new_controller) -> None:
    now = ModelSpec(name="demo", path="/m", replicas=1)
    store = MemoryStore()
    made = DesiredState().following(models={"demo": msgspec.structs.replace(now, tp=2, replicas=2)})
    made = record(made)
    await store.commit(record(msgspec.structs.replace(made, models={"demo": now})))
    async with new_controller(replicas=1, store=store) as up:
        code, message, field = await refused(up.admin.RollbackModel(rollback()))
        assert (code, field) == (grpc.StatusCode.FAILED_PRECONDITION, "revision")
        assert "revision 1 of demo has another tp" in message
        assert up.controller.state.models["demo"] == now


def record(state: DesiredState) -> DesiredState:
    return record_revisions(state, time=1.0, what="written by hand")
