"""What a router may believe of a replica after which report."""

from __future__ import annotations

import pytest

from headway.proto.headway.v1 import engine_pb2
from headway.router.replicas.sequence import SequenceTracker, Verdict


def report(
    first: int, last: int, incarnation: str = "i", snapshot: bool = False, more: bool = False
) -> engine_pb2.SessionResponse:
    return engine_pb2.SessionResponse(
        incarnation=incarnation, first_sequence=first, sequence=last, snapshot=snapshot, snapshot_continues=more
    )


@pytest.fixture
def tracker() -> SequenceTracker:
    """After a snapshot at 10."""
    tracker = SequenceTracker()
    assert tracker.take(report(10, 10, snapshot=True)) is Verdict.RESTART
    return tracker


def test_nothing_is_believed_before_a_snapshot() -> None:
    tracker = SequenceTracker()
    assert tracker.take(report(1, 1)) is Verdict.GAP
    assert not tracker.whole


def test_reports_that_follow_are_applied_merged_ones_too(tracker: SequenceTracker) -> None:
    assert tracker.take(report(11, 11)) is Verdict.APPLY
    assert tracker.take(report(12, 17)) is Verdict.APPLY
    assert (tracker.incarnation, tracker.sequence, tracker.whole) == ("i", 17, True)


@pytest.mark.parametrize(
    "wrong",
    [report(12, 12), report(10, 11), report(11, 10), report(11, 11, incarnation="j")],
    ids=["skipped", "repeated", "backwards", "other incarnation"],
)
def test_what_does_not_follow_voids_everything(tracker: SequenceTracker, wrong: engine_pb2.SessionResponse) -> None:
    assert tracker.take(wrong) is Verdict.GAP
    assert not tracker.whole
    assert tracker.hello("r") == engine_pb2.Hello(router_id="r")


def test_a_snapshot_counts_when_its_last_part_is_there(tracker: SequenceTracker) -> None:
    assert tracker.take(report(20, 20, "j", snapshot=True, more=True)) is Verdict.RESTART
    assert not tracker.whole
    assert tracker.take(report(20, 20, "j", snapshot=True, more=True)) is Verdict.APPLY
    assert tracker.take(report(20, 20, "j", snapshot=True)) is Verdict.APPLY
    assert tracker.whole
    assert tracker.take(report(21, 21, "j")) is Verdict.APPLY


def test_a_report_amid_a_snapshot_is_a_gap(tracker: SequenceTracker) -> None:
    tracker.take(report(20, 20, snapshot=True, more=True))
    assert tracker.take(report(21, 21)) is Verdict.GAP


def test_another_snapshot_after_a_whole_one_starts_over(tracker: SequenceTracker) -> None:
    assert tracker.take(report(30, 30, snapshot=True)) is Verdict.RESTART


def test_hello_goes_on_where_the_last_session_ended_and_never_in_half_a_snapshot(tracker: SequenceTracker) -> None:
    tracker.take(report(11, 14))
    assert tracker.hello("r") == engine_pb2.Hello(router_id="r", incarnation="i", after_sequence=14)
    tracker.take(report(20, 20, snapshot=True, more=True))
    assert tracker.hello("r") == engine_pb2.Hello(router_id="r")
