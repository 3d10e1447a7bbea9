"""The command line's picture of the cluster."""

from headway.cli.cluster.admin import ClusterMirror, statuses
from headway.cli.cluster.events import Failed, Ready, ReplicaProgress, Step, decode, encode
from headway.cli.cluster.files import ClusterDocument, ReplicaEntry
from headway.proto.headway.v1 import admin_pb2 as pb


def test_messages_add_up() -> None:
    mirror = ClusterMirror()
    mirror.take(pb.WatchClusterResponse(snapshot=True, replicas=[pb.Replica(id="a"), pb.Replica(id="b")]))
    mirror.take(pb.WatchClusterResponse(replicas=[pb.Replica(id="b", restarts=2)], removed_replica_ids=["a"]))
    mirror.take(pb.WatchClusterResponse(routers=[pb.Router(id="r")]))
    assert {name: replica.restarts for name, replica in mirror.replicas.items()} == {"b": 2}
    assert list(mirror.routers) == ["r"]
    mirror.take(pb.WatchClusterResponse(snapshot=True))
    assert (mirror.replicas, mirror.routers) == ({}, {})


def test_states_have_short_names() -> None:
    mirror = ClusterMirror()
    replica = pb.Replica(id="a", model="m", state=pb.REPLICA_STATE_DRAINING, tensor_parallel=2, pids=[5, 6])
    replica.load.running = 3
    replica.load.totals.steps = 2**40
    mirror.take(pb.WatchClusterResponse(snapshot=True, replicas=[replica]))
    (status,) = statuses(mirror)
    assert (status.state, status.tp, status.pids, status.load["running"]) == ("DRAINING", 2, [5, 6], 3)
    assert status.load["totals"]["steps"] == 2**40


def test_events_travel_whole() -> None:
    entry = ReplicaEntry(id="a", model="m", tp=1, pp=1, pids=[1])
    document = ClusterDocument(grpc="g", http="h", admin="a", admin_grpc="b", replicas=[entry], pids=[1], logs="/l")
    for event in (Step("x"), ReplicaProgress("a", "LOADING", 0.5), Ready(document), Failed("why", "what")):
        line = encode(event)
        assert line.count(b"\n") == 1
        assert decode(line) == event
