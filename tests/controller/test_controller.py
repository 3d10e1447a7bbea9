"""The controller over real gRPC, with groups that report like real ones."""

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2
from support.refusals import refused

from headway.controller.observed import MAX_FAILED_STARTS
from headway.controller.state import MemoryStore, ModelSpec
from headway.core.errors import ConfigError
from headway.proto.headway.v1 import admin_pb2 as pb
from headway.proto.headway.v1 import control_pb2, control_pb2_grpc

# One loop for all: grpc.aio's servers look for theirs when they are collected, however late that is.
pytestmark = pytest.mark.asyncio(loop_scope="session")


def scale(replicas: int, **change: object) -> pb.ScaleModelRequest:
    return pb.ScaleModelRequest(change=pb.Change(**change), model="demo", replicas=replicas)


async def test_groups_come_up_and_are_seen(up) -> None:
    replica = up.replica("demo-0")
    assert (replica.model, replica.loaded, replica.restarts, len(replica.pids)) == ("demo", 1.0, 0, 1)
    assert replica.endpoint.startswith("127.0.0.1:")
    assert up.controller.view.models()[0].desired_replicas == 2


async def test_loading_is_seen(new_controller) -> None:
    async with new_controller(replicas=1, plan="load") as up:
        await up.until_states(demo_0="LOADING")
        assert up.replica("demo-0").loaded == 0.5


async def test_a_death_is_seen_at_once_and_its_restart_counted(up) -> None:
    before = up.replica("demo-0").incarnation
    await asyncio.to_thread(up.supervisor.leaders["demo-0"].die)
    await up.until_states(demo_0="UNHEALTHY", demo_1="READY")
    assert "started again" in up.replica("demo-0").reason
    await up.until_states(demo_0="READY", demo_1="READY")
    assert up.replica("demo-0").incarnation != before
    assert (up.replica("demo-0").restarts, up.replica("demo-1").restarts) == (1, 0)


async def test_scaling_up_starts_more(up) -> None:
    effect = (await up.admin.ScaleModel(scale(4))).effect
    assert effect.steps == ["start 2 replicas of demo"]
    await up.until_states(demo_0="READY", demo_1="READY", demo_2="READY", demo_3="READY")


async def test_scaling_down_drains_the_least_loaded_and_waits_for_its_requests(up) -> None:
    up.supervisor.leaders["demo-0"].load(3)
    up.supervisor.leaders["demo-1"].load(1)
    await up.until(lambda: [r.load.running for r in up.controller.view.replicas()] == [3, 1])
    effect = (await up.admin.ScaleModel(scale(1))).effect
    assert effect.steps == ["drain demo-1, then stop it"]
    await up.until_states(demo_0="READY", demo_1="DRAINING")
    await asyncio.sleep(0.6)
    assert not up.replica("demo-1").load.accepting
    assert up.supervisor.stopped == []
    up.supervisor.leaders["demo-1"].load(0)
    await up.until_states(demo_0="READY")
    assert up.supervisor.stopped == ["demo-1"]


async def test_scaling_to_nothing_and_back(up) -> None:
    await up.admin.ScaleModel(scale(0))
    await up.until(lambda: up.states() == {})
    await up.admin.ScaleModel(scale(1))
    await up.until_states(demo_2="READY")


async def test_more_than_fits_waits_and_says_for_what(new_controller) -> None:
    async with new_controller(replicas=3, capacity=2) as up:
        await up.until(lambda: sorted(up.states().values()) == ["PENDING", "READY", "READY"])
        waiting = next(name for name, state in up.states().items() if state == "PENDING")
        await up.until(lambda: "0 are free" in up.replica(waiting).reason)
        await up.admin.ScaleModel(scale(2))
        await up.until(lambda: sorted(up.states().values()) == ["READY", "READY"])
        assert waiting not in up.states()


async def test_a_drained_replica_is_replaced(up) -> None:
    request = pb.DrainReplicaRequest(replica_id="demo-0", change=pb.Change(reason="node repair"))
    effect = (await up.admin.DrainReplica(request)).effect
    assert effect.steps == ["drain demo-0 for at most 30 s, then stop it", "start another replica of demo"]
    await up.until_states(demo_1="READY", demo_2="READY")
    assert up.controller.state.log[-1].reason == "node repair"


async def test_a_drain_waits_no_longer_than_it_was_told(up) -> None:
    up.supervisor.leaders["demo-0"].load(1)
    await up.until(lambda: up.replica("demo-0").load.running == 1)
    timeout = duration_pb2.Duration(seconds=1)
    await up.admin.DrainReplica(pb.DrainReplicaRequest(replica_id="demo-0", timeout=timeout))
    await up.until_states(demo_0="DRAINING", demo_1="READY", demo_2="READY")
    await up.until_states(demo_1="READY", demo_2="READY")
    code, message, field = await refused(up.admin.DrainReplica(pb.DrainReplicaRequest(replica_id="demo-0")))
    assert (code, field) == (grpc.StatusCode.NOT_FOUND, "replica_id")
    assert "demo-1" in message


async def test_a_group_that_cannot_work_is_given_up_with_its_reason(new_controller) -> None:
    async with new_controller(replicas=1, plan="refuse") as up:
        await up.until_states(demo_0="STOPPED")
        assert "lm_head.weight" in up.replica("demo-0").reason
        await up.until(lambda: up.supervisor.stopped == ["demo-0"])
        await asyncio.sleep(1.5)
        assert up.states() == {"demo-0": "STOPPED"}
        assert up.supervisor.starts == {"demo-0": 1}
        # Draining it is how an operator has it tried again.
        up.supervisor.plan = "serve"
        await up.admin.DrainReplica(pb.DrainReplicaRequest(replica_id="demo-0"))
        await up.until_states(demo_1="READY")


async def test_a_group_that_always_dies_is_given_up(new_controller) -> None:
    async with new_controller(replicas=1, plan="crash") as up:
        await up.until_states(demo_0="STOPPED")
        assert f"{MAX_FAILED_STARTS} starts in a row failed" in up.replica("demo-0").reason


async def test_a_group_that_cannot_be_launched_is_given_up(new_controller) -> None:
    async with new_controller(replicas=1, plan="no supervisor") as up:
        await up.until_states(demo_0="STOPPED")
        assert "could not be started: no supervisor here" in up.replica("demo-0").reason


async def test_a_dry_run_tells_and_does_nothing(up) -> None:
    state = up.controller.state
    effect = (await up.admin.ScaleModel(scale(3, dry_run=True))).effect
    assert effect.steps == ["start 1 replica of demo"]
    drain = pb.DrainReplicaRequest(replica_id="demo-1", change=pb.Change(dry_run=True))
    assert (await up.admin.DrainReplica(drain)).effect.steps[0].startswith("drain demo-1")
    assert up.controller.state == state


async def test_a_repeated_key_does_the_change_once(up) -> None:
    request = pb.DrainReplicaRequest(replica_id="demo-0", change=pb.Change(idempotency_key="k"))
    first = (await up.admin.DrainReplica(request)).effect
    await up.until_states(demo_1="READY", demo_2="READY")
    assert (await up.admin.DrainReplica(request)).effect == first
    assert up.states() == {"demo-1": "READY", "demo-2": "READY"}
    code, message, field = await refused(up.admin.ScaleModel(scale(5, idempotency_key="k")))
    assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "change.idempotency_key")
    assert "another change" in message


async def test_a_change_from_an_old_look_is_stale(up) -> None:
    seen = up.controller.view.version
    first = (await up.admin.ScaleModel(scale(3, expected_version=seen))).effect
    assert first.version > seen
    code, message, _ = await refused(up.admin.ScaleModel(scale(1, expected_version=seen)))
    assert code == grpc.StatusCode.ABORTED
    assert str(first.version) in message
    assert (await up.admin.ScaleModel(scale(2, expected_version=first.version))).effect.steps
    code, _, _ = await refused(up.admin.ScaleModel(scale(1, expected_version=2**60)))
    assert code == grpc.StatusCode.ABORTED


async def test_news_of_load_makes_no_look_old(up) -> None:
    seen = up.controller.view.version
    up.supervisor.leaders["demo-0"].load(4)
    await up.until(lambda: up.replica("demo-0").load.running == 4)
    assert up.controller.view.version > seen
    await up.admin.ScaleModel(scale(3, expected_version=seen))


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.ScaleModelRequest(model="nope", replicas=1), grpc.StatusCode.NOT_FOUND, "model"),
        (pb.ScaleModelRequest(model="demo", replicas=100_000), grpc.StatusCode.INVALID_ARGUMENT, "replicas"),
        (scale(1, reason="x" * 1000), grpc.StatusCode.INVALID_ARGUMENT, "change.reason"),
    ],
)
async def test_bad_scaling_is_refused_by_field(up, request_, code, field) -> None:
    got = await refused(up.admin.ScaleModel(request_))
    assert (got[0], got[2]) == (code, field)
    assert up.controller.state.models["demo"].replicas == 2


async def test_bad_drains_are_refused_by_field(up) -> None:
    negative = pb.DrainReplicaRequest(replica_id="demo-0", timeout=duration_pb2.Duration(seconds=-1))
    got = await refused(up.admin.DrainReplica(negative))
    assert (got[0], got[2]) == (grpc.StatusCode.INVALID_ARGUMENT, "timeout")
    up.supervisor.leaders["demo-0"].load(1)
    await up.until(lambda: up.replica("demo-0").load.running == 1)
    await up.admin.DrainReplica(pb.DrainReplicaRequest(replica_id="demo-0"))
    got = await refused(up.admin.DrainReplica(pb.DrainReplicaRequest(replica_id="demo-0")))
    assert got[0] == grpc.StatusCode.FAILED_PRECONDITION


async def test_watch_gives_a_snapshot_then_what_changed(up) -> None:
    call = up.admin.WatchCluster(pb.WatchClusterRequest())
    first = await call.read()
    assert first.snapshot
    assert [replica.id for replica in first.replicas] == ["demo-0", "demo-1"]
    await up.admin.ScaleModel(scale(1))
    removed: list[str] = []
    version = first.version
    while not removed:
        message = await asyncio.wait_for(call.read(), 20)
        assert not message.snapshot
        assert message.version > version
        version = message.version
        removed += message.removed_replica_ids
    assert removed == ["demo-1"]
    call.cancel()


async def test_routers_come_and_go_with_their_streams(up) -> None:
    report = control_pb2.ReportRouterRequest(router=pb.Router(id="r", grpc_address="127.0.0.1:1", running=5))
    call = control_pb2_grpc.ControlServiceStub(up.channel).ReportRouter()
    await call.write(report)
    await up.until(lambda: [router.running for router in up.controller.view.routers()] == [5])
    call.cancel()
    await up.until(lambda: up.controller.view.routers() == [])


async def test_reports_of_strangers_are_not_taken(up) -> None:
    call = control_pb2_grpc.ControlServiceStub(up.channel).ReportReplica()
    report = control_pb2.ReportReplicaRequest(replica_id="ghost", incarnation="1", state=pb.REPLICA_STATE_READY)
    await call.write(report)
    await call.done_writing()
    await call
    assert up.states() == {"demo-0": "READY", "demo-1": "READY"}
    nameless = control_pb2_grpc.ControlServiceStub(up.channel).ReportReplica(iter([control_pb2.ReportReplicaRequest()]))
    got = await refused(nameless)
    assert (got[0], got[2]) == (grpc.StatusCode.INVALID_ARGUMENT, "replica_id")


async def test_the_next_controller_goes_on_from_the_state(new_controller) -> None:
    store = MemoryStore()
    async with new_controller(replicas=1, store=store) as first:
        await first.until_states(demo_0="READY")
        await first.admin.ScaleModel(scale(2))
        await first.until_states(demo_0="READY", demo_1="READY")
        version = first.controller.view.version
    async with new_controller(replicas=1, store=store) as second:
        # Two, as was asked for, not one as on the command line; and the same two.
        await second.until_states(demo_0="READY", demo_1="READY")
        assert second.controller.view.version > version


async def test_another_model_under_a_stored_name_is_refused() -> None:
    from support.stand_in_groups import StandInSupervisor

    from headway.controller.controller import Controller

    store = MemoryStore()
    await Controller(store, StandInSupervisor()).start([ModelSpec(name="m", path="/a", replicas=1)])
    with pytest.raises(ConfigError, match="m is in the stored state"):
        await Controller(store, StandInSupervisor()).start([ModelSpec(name="m", path="/a", replicas=1, tp=2)])
