"""All replicas of the cluster and a session with each, kept in line with what the controller says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator

from ...proto.headway.v1 import admin_pb2
from ..index import PrefixIndex
from ..policy import Ledger
from .assets import TextAssets
from .replica import Replica
from .session import Session
from .signal import ChangeSignal

log = logging.getLogger(__name__)

RETIRE_CHECK_S = 0.1


class Fleet:
    """Replicas by id. `version` grows and `changed` fires whenever it may matter to a choice or to the catalogue."""

    def __init__(self, *, router_id: str, index: PrefixIndex, ledger: Ledger) -> None:
        self.declared_models: set[str] = set()
        self.declared_adapters: dict[str, set[str]] = {}  # by model
        self.changed = ChangeSignal()
        self.version = 0
        self._router_id = router_id
        self._index = index
        self._ledger = ledger
        self._assets = TextAssets()
        self._sessions: dict[str, Session] = {}
        self._watched_incarnation: dict[str, str] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()

    def replicas(self) -> Iterator[Replica]:
        return (session.replica for session in self._sessions.values())

    def session(self, replica_id: str) -> Session:
        """The session with this replica. Raises KeyError for an unknown one."""
        for session in self._sessions.values():
            if session.replica.replica_id == replica_id:
                return session
        raise KeyError(replica_id)

    def add_static(self, endpoint: str) -> None:
        """A replica that no controller tells of."""
        self._sessions[endpoint] = self._open(Replica(endpoint, endpoint, by_address=True))

    def apply(self, update: admin_pb2.WatchClusterResponse) -> None:
        """Takes a snapshot or a change of the controller's view."""
        if update.snapshot:
            self.declared_models = {model.name for model in update.models}
            self.declared_adapters.clear()
            listed = {replica.id for replica in update.replicas}
            gone = [replica_id for replica_id in self._sessions if replica_id not in listed]
        else:
            self.declared_models.update(model.name for model in update.models)
            gone = list(update.removed_replica_ids)
        for model in update.models:
            self.declared_adapters[model.name] = {adapter.name for adapter in model.adapters}
        for seen in update.replicas:
            if seen.state == admin_pb2.REPLICA_STATE_STOPPED:
                gone.append(seen.id)
            else:
                self._watched(seen)
        for replica_id in gone:
            self._retire(replica_id)
        self._note_change()

    async def close(self) -> None:
        """Ends all sessions."""
        for task in (*self._closing.values(), *self._background):
            task.cancel()
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        self._sessions.clear()

    def _watched(self, seen: admin_pb2.Replica) -> None:
        """One replica as the controller sees it; one that does not listen yet is of no use yet."""
        session = self._sessions.get(seen.id)
        if session is not None and self._restarted(session, seen):
            self._in_background(session.close())
            session = None
        if session is None:
            if not seen.endpoint:
                return
            session = self._sessions[seen.id] = self._open(Replica(seen.id, seen.endpoint))
        if seen.incarnation:
            self._watched_incarnation[seen.id] = seen.incarnation
        self._keep(seen.id)
        replica = session.replica
        if seen.state == admin_pb2.REPLICA_STATE_READY and not replica.synced:
            session.poke()
        replica.state = seen.state

    def _restarted(self, session: Session, seen: admin_pb2.Replica) -> bool:
        """Whether the controller knows of a newer start than the session is with.

        The session often learns first, so only a change in what the controller says counts, never a mere difference.
        """
        if seen.endpoint and seen.endpoint != session.replica.endpoint:
            return True
        before = self._watched_incarnation.get(seen.id, "")
        changed = bool(before and seen.incarnation) and before != seen.incarnation
        return changed and session.incarnation not in ("", seen.incarnation)

    def _keep(self, replica_id: str) -> None:
        """It is in the cluster: a retirement under way is called off."""
        closing = self._closing.pop(replica_id, None)
        if closing is not None:
            closing.cancel()
        self._sessions[replica_id].replica.retired = False

    def _retire(self, replica_id: str) -> None:
        """No new requests; those running there may end. A controller that lost its memory must not cut streams."""
        session = self._sessions.get(replica_id)
        if session is not None and not session.replica.retired:
            session.replica.retired = True
            self._closing[replica_id] = asyncio.create_task(self._close_when_idle(replica_id, session))

    async def _close_when_idle(self, replica_id: str, session: Session) -> None:
        while session.live_requests and session.replica.synced:
            await self.changed.wait(RETIRE_CHECK_S)
        # From here on a return of the replica makes a new session.
        del self._closing[replica_id], self._sessions[replica_id]
        self._watched_incarnation.pop(replica_id, None)
        self._in_background(session.close())
        self._index.forget(replica_id)
        self._note_change()
        log.info("replica %s left", replica_id)

    def _open(self, replica: Replica) -> Session:
        return Session(
            replica,
            router_id=self._router_id,
            index=self._index,
            ledger=self._ledger,
            assets=self._assets,
            on_change=self._note_change,
        )

    def _note_change(self) -> None:
        self.version += 1
        self.changed.notify()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
