"""What the group says of itself to the controller: its state, and why."""

from __future__ import annotations

from ...proto.headway.v1 import admin_pb2, control_pb2, engine_pb2
from ...proto.headway.v1.admin_pb2 import ReplicaState


class Standing:
    """Set by the group's threads, read by the reporter. Each attribute is replaced whole, so no lock is needed."""

    def __init__(self, replica_id: str, incarnation: str) -> None:
        self.replica_id = replica_id
        self.incarnation = incarnation
        self.state: ReplicaState = admin_pb2.REPLICA_STATE_LOADING
        self.reason = "starting its ranks"
        self.loaded = 0.0
        self.endpoint = ""
        self.revision = ""
        self.pids: list[int] = []
        self.nodes: list[str] = []
        self.adapters: list[engine_pb2.Adapter] = []

    def message(self) -> control_pb2.ReportReplicaRequest:
        """The report, but for the load."""
        return control_pb2.ReportReplicaRequest(
            replica_id=self.replica_id,
            incarnation=self.incarnation,
            state=self.state,
            reason=self.reason,
            loaded=self.loaded,
            endpoint=self.endpoint,
            pids=self.pids,
            nodes=self.nodes,
            revision=self.revision,
            adapters=self.adapters,
        )
