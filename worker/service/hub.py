"""All sessions of this leader: numbers the reports, keeps what a newcomer has to be told, deals out each report.

Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from ...core.errors import Stale
from ...proto.headway.v1 import engine_pb2
from ..engine import Command, Figures, Leave, Output, Refused, StepReport, Submit
from ..pages import KvChange, KvOp
from .changes import ChangeLog
from .messages import event_messages, load_message, stamp
from .outbox import Outbox

HEARTBEAT_S = 1.0
SNAPSHOT_KEYS = 16_384


class Session:
    """One router's stream. `number` is what the engine knows it by; `compiling` are the grammars of its requests,
    `unreported` those that were handed to the engine and that no report counts yet, in order."""

    def __init__(self, number: int, hello: engine_pb2.Hello) -> None:
        self.number = number
        self.router_id = hello.router_id
        self.outbox = Outbox(takes_decoded=hello.takes_decoded)
        self.compiling: dict[int, asyncio.Task[None]] = {}
        self.unreported: deque[int] = deque()
        self.last_submit = 0
        self.ended = False

    def stop_compiling(self, outputs: list[Output], refusals: list[Refused]) -> None:
        """Grammars of requests that have ended are of no use: they would pile up behind a router that submits on."""
        if self.compiling:
            ended = [output.id for output in outputs if output.finish] + [refused.id for refused in refusals]
            for task in filter(None, map(self.compiling.get, ended)):
                task.cancel()


class Hub:
    """Reports flow in by `publish`, and out by each session's outbox."""

    def __init__(
        self, incarnation: str, inbox: SimpleQueue[Command], silence: Callable[[], float], figures: Figures
    ) -> None:
        self.incarnation = incarnation
        self.inbox = inbox
        self.sequence = 0
        self._silence = silence
        self._figures = figures
        self._log = ChangeLog()
        self._sessions: dict[int, Session] = {}
        self._numbers = itertools.count(1)
        self._published_at = 0.0
        self._adapters = engine_pb2.AdapterSet()

    @property
    def unfinished(self) -> int:
        """Requests that run or wait, those among them which the engine has not told of yet."""
        return self._reported + sum(len(session.unreported) for session in self._sessions.values())

    @property
    def drained(self) -> bool:
        """Whether nothing runs or waits, and nothing will: what was taken before the drain began is counted by then."""
        # By the figures alone: other threads ask, and sessions come and go on this one.
        return not self._figures.accepting and self._reported == 0

    @property
    def _reported(self) -> int:
        return self._figures.running + self._figures.waiting

    def submit(self, session: Session, command: Submit) -> None:
        """Hands a request to the engine."""
        session.unreported.append(command.request.id)
        self.inbox.put(command)

    def load(self) -> engine_pb2.Load:
        """The load as of the last report, with the engine's silence as of now."""
        return load_message(self._figures, self._silence())

    def publish(self, report: StepReport) -> None:
        """Numbers a report and gives every session its part."""
        self.sequence += 1
        self._published_at = time.monotonic()
        self._figures = report.figures
        self._log.add(self.sequence, report.kv_changes)
        load = self.load()
        for number, session in self._sessions.items():
            session.last_submit = report.submitted.get(number, session.last_submit)
            while session.unreported and session.unreported[0] <= session.last_submit:
                session.unreported.popleft()
            outputs, refusals = report.outputs.get(number, []), report.refusals.get(number, [])
            session.stop_compiling(outputs, refusals)
            decoded, changes = report.decoded.get(number), report.kv_changes
            session.outbox.add(self.sequence, outputs, decoded, refusals, changes, load, session.last_submit)

    def set_adapters(self, adapters: list[engine_pb2.Adapter]) -> None:
        """Requests may name these from now on; every router hears it at once."""
        self._adapters = engine_pb2.AdapterSet(adapters=adapters)
        for session in self._sessions.values():
            session.outbox.adapters = self._adapters
        self.heartbeat()

    def heartbeat(self) -> None:
        """A report without news. It does not need the engine, so it tells of a hung one too."""
        self.publish(StepReport({}, {}, {}, {}, [], self._figures))

    async def beat(self) -> None:
        """Sends a heartbeat whenever nothing else was published for HEARTBEAT_S. Runs until cancelled."""
        while True:
            due = self._published_at + HEARTBEAT_S - time.monotonic()
            if due <= 0:
                self.heartbeat()
            else:
                await asyncio.sleep(due)

    def join(self, hello: engine_pb2.Hello) -> tuple[Session, Iterator[engine_pb2.SessionResponse]]:
        """Opens a session, in place of an older one of the same router; with the messages that come first."""
        for older in [session for session in self._sessions.values() if session.router_id == hello.router_id]:
            older.outbox.close(Stale(f"another session of router {hello.router_id!r} took this one's place"))
            self.leave(older)
        self.heartbeat()  # so that even a router which missed nothing gets the load at once
        session = Session(next(self._numbers), hello)
        self._sessions[session.number] = session
        opening = self._continue(hello)
        return session, self._snapshot() if opening is None else iter([opening])

    def leave(self, session: Session) -> None:
        """Ends a session: its requests are aborted. Safe to repeat."""
        if self._sessions.pop(session.number, None) is not None:
            session.ended = True
            for task in session.compiling.values():
                task.cancel()
            session.outbox.close()
            self.inbox.put(Leave(session.number))

    def close(self) -> None:
        """Ends every stream, once what it holds is sent."""
        for session in list(self._sessions.values()):
            self.leave(session)

    def _continue(self, hello: engine_pb2.Hello) -> engine_pb2.SessionResponse | None:
        """One message for all that a router missed; None when only a snapshot will do."""
        if hello.incarnation != self.incarnation or not 0 < hello.after_sequence < self.sequence:
            return None
        changes = self._log.after(hello.after_sequence)
        if changes is None:
            return None
        message = self._message(hello.after_sequence + 1)
        message.kv_events.extend(event_messages(changes))
        return message

    def _snapshot(self) -> Iterator[engine_pb2.SessionResponse]:
        """All stored keys as of now, in parts. The lists are taken at once, the messages are made as they are sent."""
        sequence, load = self.sequence, self.load()
        pieces = [
            KvChange(KvOp.STORED, keys[start : start + SNAPSHOT_KEYS], medium)
            for medium, stored in self._log.stored.items()
            for keys in [list(stored)]
            for start in range(0, len(keys), SNAPSHOT_KEYS)
        ]

        def parts() -> Iterator[engine_pb2.SessionResponse]:
            for number in range(max(1, len(pieces))):
                message = self._message(sequence, sequence, load)
                message.snapshot = True
                message.snapshot_continues = number + 1 < len(pieces)
                message.kv_events.extend(event_messages(pieces[number : number + 1]))
                yield message

        return parts()

    def _message(
        self, first: int, last: int | None = None, load: engine_pb2.Load | None = None
    ) -> engine_pb2.SessionResponse:
        message = engine_pb2.SessionResponse(
            incarnation=self.incarnation,
            first_sequence=first,
            sequence=self.sequence if last is None else last,
            load=self.load() if load is None else load,
            adapters=self._adapters,
        )
        stamp(message)
        return message
