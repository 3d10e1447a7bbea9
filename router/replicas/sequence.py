"""Whether what a router knows of a replica still follows from what the replica says.

Reports are numbered without gaps within one incarnation of the group. After a gap, or under a new incarnation, all that
was known is void until a snapshot has come whole.
"""

from __future__ import annotations

import enum

from ...proto.headway.v1 import engine_pb2


class Verdict(enum.Enum):
    """What to do with a report."""

    APPLY = enum.auto()
    """It follows: apply it."""
    RESTART = enum.auto()
    """A snapshot begins: forget what was known, then apply it."""
    GAP = enum.auto()
    """It does not follow: forget what was known, apply nothing, ask for a snapshot."""


class SequenceTracker:
    """Follows one replica's reports, over any number of sessions."""

    def __init__(self) -> None:
        self.incarnation = ""
        self.sequence = 0
        self._in_snapshot = False

    @property
    def whole(self) -> bool:
        """Whether what was applied is complete: no snapshot is under way."""
        return bool(self.incarnation) and not self._in_snapshot

    def hello(self, router_id: str) -> engine_pb2.Hello:
        """Opens a session where the last one ended; half a snapshot counts for nothing."""
        if self._in_snapshot:
            self.forget()
        return engine_pb2.Hello(router_id=router_id, incarnation=self.incarnation, after_sequence=self.sequence)

    def take(self, report: engine_pb2.SessionResponse) -> Verdict:
        """Judges the next report and moves on, or forgets everything when it does not follow."""
        if report.snapshot:
            part = self._in_snapshot and report.incarnation == self.incarnation
            self.incarnation, self.sequence = report.incarnation, report.sequence
            self._in_snapshot = report.snapshot_continues
            return Verdict.APPLY if part else Verdict.RESTART
        follows = report.incarnation == self.incarnation and report.first_sequence == self.sequence + 1
        if not follows or self._in_snapshot or report.sequence < report.first_sequence:
            self.forget()
            return Verdict.GAP
        self.sequence = report.sequence
        return Verdict.APPLY

    def forget(self) -> None:
        """Back to knowing nothing."""
        self.incarnation, self.sequence, self._in_snapshot = "", 0, False
