"""What is known of one replica: its leader's reports, the stream they come on, and its supervisor's word."""

from __future__ import annotations

import time

from ..proto.headway.v1 import admin_pb2, control_pb2
from .adapters import ReplicaAdapters
from .reconcile import ReplicaView
from .state import ModelSpec, ReplicaRecord

PENDING = admin_pb2.REPLICA_STATE_PENDING
READY = admin_pb2.REPLICA_STATE_READY
DRAINING = admin_pb2.REPLICA_STATE_DRAINING
UNHEALTHY = admin_pb2.REPLICA_STATE_UNHEALTHY
STOPPED = admin_pb2.REPLICA_STATE_STOPPED

# A leader reports every second; after this long it hangs, whatever its socket says.
SILENCE_S = 10.0
# A group that dies this often without ever serving in between is not started again.
MAX_FAILED_STARTS = 5


class ObservedReplica:
    """The facts of one replica. Nothing here decides: `view` and `message` put them together."""

    def __init__(self) -> None:
        self.launched = False
        self.busy = False
        self.failed = ""
        self.pending_reason = "waiting to be started"
        self.unfinished: int | None = None
        self.report: control_pb2.ReportReplicaRequest | None = None
        self.incarnations = 0
        self.failed_starts = 0
        self.failed_launches = 0
        self.adapters = ReplicaAdapters()
        self._stream: object | None = None
        self._heard = 0.0
        self._was_ready = False
        self._last_words = ""

    @property
    def connected(self) -> bool:
        return self._stream is not None

    @property
    def serving(self) -> bool:
        """Whether its leader can have requests."""
        return self.connected and self.report is not None and self.report.state in (READY, DRAINING)

    def take(self, report: control_pb2.ReportReplicaRequest, stream: object) -> None:
        """A report that came on `stream`. A new incarnation replaces what was known of the old one.

        A report without an incarnation is what a leader says in place of starting, or before it exits.
        """
        if not report.incarnation:
            self._last_words = self.pending_reason = report.reason
            if report.state == STOPPED:
                self.failed = report.reason
            return
        if self.report is None or report.incarnation != self.report.incarnation:
            self._count_start()
        self.report = report
        self._stream = stream
        self._heard = time.monotonic()
        self._was_ready = self._was_ready or report.state == READY
        if report.state == UNHEALTHY and report.reason:
            self._last_words = report.reason
        if report.state == STOPPED:
            self.failed = report.reason or "the group gave up and did not say why"

    def _count_start(self) -> None:
        if self.incarnations and not self._was_ready:
            self.failed_starts += 1
        elif self._was_ready:
            self.failed_starts = 0
        self.incarnations += 1
        self._was_ready = False
        self.unfinished = None
        self.adapters = ReplicaAdapters()
        if self.failed_starts >= MAX_FAILED_STARTS:
            self.failed = f"{self.failed_starts} starts in a row failed: {self._last_words or 'see the leader log'}"

    def could_not(self, doing: str, error: Exception) -> None:
        """What was asked of the supervisor failed. A launch that fails this often will not come to work by itself."""
        self.pending_reason = f"could not be {doing}: {error}"
        if doing == "started":
            self.failed_launches += 1
            if self.failed_launches >= MAX_FAILED_STARTS:
                self.failed = f"{self.failed_launches} tries in a row: {self.pending_reason}"

    def lose(self, stream: object) -> bool:
        """The end of `stream`; False when a newer one has taken its place."""
        if self._stream is not stream:
            return False
        self._stream = None
        return True

    def view(self, record: ReplicaRecord) -> ReplicaView:
        """What the reconciler needs."""
        load = self.report.load if self.report is not None else None
        unfinished = self.unfinished
        if not self.serving:
            unfinished = 0
        elif unfinished is None and not record.drain_until and load is not None:
            unfinished = load.running + load.waiting
        return ReplicaView(
            id=record.id,
            model=record.model,
            ordinal=record.ordinal,
            state=self._state(record)[0],
            launched=self.launched,
            connected=self.connected,
            failed=bool(self.failed),
            busy=self.busy,
            drain_until=record.drain_until,
            unfinished=unfinished,
            used_pages=load.used_pages if load is not None else 0,
        )

    def message(self, record: ReplicaRecord, model: ModelSpec | None) -> admin_pb2.Replica:
        """What watchers see."""
        state, reason = self._state(record)
        message = admin_pb2.Replica(
            id=record.id,
            model=record.model,
            state=state,
            reason=reason,
            restarts=max(0, self.incarnations - 1),
        )
        if model is not None:
            message.tensor_parallel, message.pipeline_parallel = model.tp, model.pp
        report = self.report
        if report is not None and state not in (PENDING, STOPPED):
            message.incarnation, message.revision = report.incarnation, report.revision
            message.endpoint, message.loaded = report.endpoint, report.loaded
            message.pids.extend(report.pids)
            message.nodes.extend(report.nodes)
            message.load.CopyFrom(report.load)
            message.adapters.extend(report.adapters)
            message.adapter_errors.update(self.adapters.errors)
        return message

    def _state(self, record: ReplicaRecord) -> tuple[admin_pb2.ReplicaState, str]:
        if self.failed:
            return STOPPED, self.failed
        if self.report is None:
            return PENDING, self.pending_reason
        if not self.connected:
            words = f": {self._last_words}" if self._last_words else ""
            return UNHEALTHY, f"its leader's reports ended; it is being started again{words}"
        silence = time.monotonic() - self._heard
        if silence > SILENCE_S:
            return UNHEALTHY, f"its leader has not reported for {silence:.0f} s"
        if record.drain_until and self.report.state == READY:
            return DRAINING, "takes no new requests"
        return self.report.state, self.report.reason
