"""What `headway adapters list` shows, from what WatchCluster tells."""

from headway.cli.cluster.adapters import adapter_statuses
from headway.cli.cluster.admin import ClusterMirror
from headway.cli.commands.adapters import _print_table
from headway.proto.headway.v1 import admin_pb2 as pb
from headway.proto.headway.v1 import engine_pb2


def test_each_adapter_with_those_that_hold_it_and_why_others_do_not(capsys) -> None:
    mirror = ClusterMirror()
    mirror.take(
        pb.WatchClusterResponse(
            snapshot=True,
            models=[
                pb.ModelDeployment(name="demo", adapters=[pb.AdapterDeployment(name="sql", path="/a/[sql]")]),
                pb.ModelDeployment(name="other"),
            ],
            replicas=[
                pb.Replica(id="demo-0", model="demo", adapters=[engine_pb2.Adapter(name="sql", path="/a/[sql]")]),
                pb.Replica(id="demo-1", model="demo", adapters=[engine_pb2.Adapter(name="sql", path="/older")]),
                pb.Replica(id="demo-2", model="demo", adapter_errors={"sql": "rank 64 is above", "gone": "x"}),
                pb.Replica(id="other-0", model="other"),
            ],
        )
    )
    (found,) = adapter_statuses(mirror)
    assert (found.name, found.model, found.path) == ("sql", "demo", "/a/[sql]")
    assert (found.ready_replicas, found.replicas, found.errors) == (1, 3, {"demo-2": "rank 64 is above"})
    _print_table([found])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("sql", "demo", "1/3", "/a/[sql]", "rank 64 is above"))
