"""What a report changes: the index, the replica's figures, the ledger, and the requests that wait for their tokens.

This is the router's hottest loop: one pass hands every request its new tokens, without a task or a queue for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from ...core.blocks import split_keys
from ...proto.headway.v1 import engine_pb2
from ..index import Medium, PrefixIndex
from ..policy import Ledger, figures_from_load
from .replica import Replica
from .sequence import SequenceTracker, Verdict

MEDIA = {engine_pb2.MEDIUM_HOST: Medium.HOST, engine_pb2.MEDIUM_DISK: Medium.DISK}


class OutputSink(Protocol):
    """A request on a session. At most one of a last output, a refusal and a loss ends it, and nothing comes after."""

    def token(self, token: int) -> None:
        """One new token, and nothing else: what most requests have of most reports."""
        ...

    def output(self, output: engine_pb2.StepOutput) -> None:
        """News that are more than that."""
        ...

    def refused(self, refusal: engine_pb2.Refusal) -> None:
        """The engine does not take it."""
        ...

    def lost(self, why: str) -> None:
        """The session ended; what the request still had to give will not come from there."""
        ...


class SessionBroken(Exception):
    """The stream is of no more use; the message says why."""


class Intake:
    """Applies the reports of one replica, over any number of sessions."""

    def __init__(self, replica: Replica, index: PrefixIndex, ledger: Ledger, on_change: Callable[[], None]) -> None:
        self.tracker = SequenceTracker()
        self.sinks: dict[int, OutputSink] = {}
        self._replica = replica
        self._index = index
        self._ledger = ledger
        self._on_change = on_change

    @property
    def whole(self) -> bool:
        """Whether enough is known to send requests there."""
        return self.tracker.whole and self._replica.figures is not None

    def take(self, report: engine_pb2.SessionResponse) -> None:
        """Applies one report: cache events, adapters, load, then the tokens.

        Raises SessionBroken when it does not follow.
        """
        self._follow(report)
        for event in report.kv_events:
            self._take_event(event)
        if report.HasField("adapters"):
            self._take_adapters(report.adapters)
        if report.HasField("load"):
            self._take_load(report.load)
            self._ledger.confirm(self._replica.replica_id, report.last_submit_id)
        self._hand_out(report)

    def lose(self, why: str) -> int:
        """All requests there are lost; returns how many."""
        sinks, self.sinks = self.sinks, {}
        self._ledger.forget(self._replica.replica_id)
        self._replica.figures = None
        for sink in sinks.values():
            sink.lost(why)
        return len(sinks)

    def _follow(self, report: engine_pb2.SessionResponse) -> None:
        verdict = self.tracker.take(report)
        if verdict is Verdict.APPLY:
            return
        self._index.cleared(self._replica.replica_id)
        if verdict is Verdict.GAP:
            raise SessionBroken(f"report {report.first_sequence} does not follow; asking for a snapshot")
        assert self._replica.description is not None
        if report.incarnation != self._replica.description.answer.incarnation:
            raise SessionBroken("the group started again; asking what it serves now")

    def _take_load(self, load: engine_pb2.Load) -> None:
        replica = self._replica
        assert replica.description is not None
        before, replica.figures = replica.figures, figures_from_load(load, replica.description.answer)
        replica.reported_at = time.monotonic()
        if replica.synced and before is not None and before.accepting != load.accepting:
            self._on_change()

    def _take_adapters(self, held: engine_pb2.AdapterSet) -> None:
        self._replica.adapters = {adapter.name: adapter.revision for adapter in held.adapters}
        self._on_change()

    def _take_event(self, event: engine_pb2.KvEvent) -> None:
        replica_id = self._replica.replica_id
        kind = event.WhichOneof("change")
        if kind == "stored":
            self._index.stored(replica_id, split_keys(event.stored.keys), _medium(event.stored.medium))
        elif kind == "removed":
            self._index.removed(replica_id, split_keys(event.removed.keys), _medium(event.removed.medium))
        elif kind == "cleared":
            self._index.cleared(replica_id)

    def _hand_out(self, report: engine_pb2.SessionResponse) -> None:
        sinks, ids, tokens = self.sinks, report.decoded_ids, report.decoded_tokens
        if len(ids) != len(tokens):
            raise SessionBroken(f"report {report.sequence} names {len(ids)} requests for {len(tokens)} tokens")
        for id, token in zip(ids, tokens, strict=True):
            sink = sinks.get(id)
            if sink is not None:
                sink.token(token)
        for output in report.outputs:
            sink = sinks.get(output.id)
            if sink is not None:
                if output.finish_reason:
                    del sinks[output.id]
                sink.output(output)
        for refusal in report.refusals:
            sink = sinks.pop(refusal.id, None)
            if sink is not None:
                sink.refused(refusal)


def _medium(medium: engine_pb2.Medium) -> Medium:
    return MEDIA.get(medium, Medium.DEVICE)
