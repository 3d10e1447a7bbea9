"""The controller: holds what is wanted against what is seen, and acts on the difference."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterable

import grpc
import msgspec
from google.protobuf.message import Message

from ..core.errors import ConfigError, InvalidRequest, Stale
from ..core.servers import CHANNEL_OPTIONS
from ..core.specs import GroupSpec
from ..proto.headway.v1 import admin_pb2, control_pb2, engine_pb2, engine_pb2_grpc
from . import adapters, changes
from .ledger import Ledger
from .observed import ObservedReplica
from .reconcile import Action, Add, Drain, Forget, Launch, ReplicaView, Retire, Stop, reconcile
from .state import AdapterRecord, DesiredState, ModelRevision, ModelSpec, ReplicaRecord, StateStore, record_revisions
from .supervisor import GroupSupervisor
from .view import ClusterView

log = logging.getLogger(__name__)

DEFAULT_DRAIN_S = 30.0
TICK_S = 1.0
DRAIN_TICK_S = 0.25
ADAPTER_SETTLE_S = 0.1


class Controller:
    """One event loop owns it. `start`, then `run` until cancelled, then `close`."""

    def __init__(self, store: StateStore, supervisor: GroupSupervisor, *, group_host: str = "127.0.0.1") -> None:
        """`group_host` is where leaders listen; `controller_address` is set once the control port is known."""
        self.controller_address = ""
        self.view = ClusterView()
        self._store = store
        self._supervisor = supervisor
        self._group_host = group_host
        self._state = DesiredState()
        self._observed: dict[str, ObservedReplica] = {}
        self._routers: dict[str, object] = {}
        self._ledger = Ledger(self.view)
        self._pushes = adapters.Pushes()
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> DesiredState:
        """The desired state as last committed."""
        return self._state

    async def start(self, models: Iterable[ModelSpec]) -> None:
        """Takes up the stored state, adds models that it lacks, and takes back groups that still run.

        Raises ConfigError when a stored model differs from the one asked for.
        """
        stored = await self._store.load()
        known = dict(stored.models)
        for model in models:
            before = known.setdefault(model.name, model)
            if msgspec.structs.replace(before, replicas=0) != msgspec.structs.replace(model, replicas=0):
                raise ConfigError(
                    f"model {model.name} is in the stored state with other settings ({before.path}, tp {before.tp}, "
                    f"pp {before.pp}): scale it to 0 and delete the state, or start with the same settings"
                )
        for name in known.keys() & stored.adapters.keys():
            raise ConfigError(f"an adapter in the stored state is called {name}: give the model another name")
        self.view.begin_life(stored.lives)
        after = stored.following(lives=stored.lives + 1, models=known)
        self._state = record_revisions(after, time=time.time(), what="start")
        await self._store.commit(self._state)
        for replica_id in await self._supervisor.held():
            if replica_id in self._state.replicas:
                self._seen(replica_id).launched = True
            else:
                await self._supervisor.stop(replica_id)
        self._publish()

    async def run(self) -> None:
        """Reconciles at each change and every second, until cancelled."""
        while True:
            try:
                draining = await self._reconcile_once()
            except Exception:
                log.exception("reconciling failed; trying again")
                draining = False
                await asyncio.sleep(TICK_S)
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TICK_S if draining else TICK_S):
                    await self._wake.wait()
            self._wake.clear()

    async def close(self) -> None:
        """Ends what it started; groups go on. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()

    # What operators ask for.

    async def scale(self, request: admin_pb2.ScaleModelRequest) -> admin_pb2.Effect:
        """Sets a model's number of replicas. Raises NotFound, InvalidRequest, Stale."""
        edit = changes.scale(request.model, request.replicas, self.views, time.time(), DEFAULT_DRAIN_S)
        bare = admin_pb2.ScaleModelRequest(model=request.model, replicas=request.replicas)
        return await self._change(request.change, bare, edit)

    async def rollback(self, request: admin_pb2.RollbackModelRequest) -> admin_pb2.Effect:
        """Gives a model an earlier revision's settings. Raises NotFound, Refused, InvalidRequest, Stale."""
        edit = changes.rollback(request.model, request.revision, self.views, time.time(), DEFAULT_DRAIN_S)
        bare = admin_pb2.RollbackModelRequest(model=request.model, revision=request.revision)
        return await self._change(request.change, bare, edit)

    async def drain(self, request: admin_pb2.DrainReplicaRequest) -> admin_pb2.Effect:
        """Lets one replica go. Raises NotFound, Refused, InvalidRequest, Stale."""
        patience = DEFAULT_DRAIN_S
        if request.HasField("timeout"):
            patience = request.timeout.ToMicroseconds() / 1e6
            if not 0 <= patience <= changes.MAX_DRAIN_S:
                message = f"timeout must be at least 0 s and at most {changes.MAX_DRAIN_S:g} s, got {patience:g} s"
                raise InvalidRequest(message, field="timeout")
        edit = changes.drain(request.replica_id, time.time(), patience)
        bare = admin_pb2.DrainReplicaRequest(replica_id=request.replica_id, timeout=request.timeout)
        return await self._change(request.change, bare, edit)

    async def load_adapter(self, request: admin_pb2.LoadAdapterRequest) -> admin_pb2.Effect:
        """Has every replica of a model hold an adapter; those that serve have read it when this returns.

        Raises NotFound, AlreadyExists, InvalidRequest (with what a replica says of it), Refused, Stale.
        """
        edit = adapters.load_adapter(request.model, request.name, request.path)
        bare = admin_pb2.LoadAdapterRequest(model=request.model, name=request.name, path=request.path)
        rehearsal = admin_pb2.Change()
        rehearsal.CopyFrom(request.change)
        rehearsal.dry_run = True
        _, effect = self._ledger.apply(self._state, rehearsal, bare, edit)
        if request.change.dry_run:
            return effect
        model = adapters.adapted_model(self._state, request.model)
        try:
            with self._pushes.of(request.name):
                await adapters.load_on_all(self._serving(model), request.name, request.path)
                return await self._change(request.change, bare, edit)
        finally:
            self._wake.set()  # after a refusal some replicas hold what is not wanted

    async def unload_adapter(self, request: admin_pb2.UnloadAdapterRequest) -> admin_pb2.Effect:
        """Lets an adapter go; requests that run with it end with it. Raises NotFound, InvalidRequest, Stale."""
        bare = admin_pb2.UnloadAdapterRequest(name=request.name)
        return await self._change(request.change, bare, adapters.unload_adapter(request.name))

    def revisions(self, model: str) -> list[admin_pb2.ModelRevision]:
        """The revisions of a model that are kept, newest first. Raises NotFound."""
        changes.known_model(self._state, model)
        return [_revision_message(revision) for revision in reversed(self._state.revisions.get(model, ()))]

    async def _change(self, change: admin_pb2.Change, bare: Message, edit: changes.Edit) -> admin_pb2.Effect:
        """`bare` is the request without its header."""
        async with self._writing:
            after, effect = self._ledger.apply(self._state, change, bare, edit)
            if after is None:
                return effect
            await self._commit(after)
        reason = f" ({change.reason})" if change.reason else ""
        log.info("%s%s: %s", after.log[-1].what, reason, "; ".join(effect.steps) or "nothing")
        self._publish()
        return effect

    # What leaders and routers report.

    def replica_reported(self, report: control_pb2.ReportReplicaRequest, stream: object) -> None:
        """One report of a leader, on its stream. Reports of replicas that are not ours are dropped."""
        if report.replica_id not in self._state.replicas:
            return
        seen = self._seen(report.replica_id)
        before = (seen.report.incarnation, seen.report.state) if seen.report else None
        seen.take(report, stream)
        self._publish(report.replica_id)
        if before != (report.incarnation, report.state):
            state = admin_pb2.ReplicaState.Name(report.state).removeprefix("REPLICA_STATE_")
            log.info("replica %s is %s%s", report.replica_id, state, f": {report.reason}" if report.reason else "")
            self._wake.set()

    def replica_lost(self, replica_id: str, stream: object) -> None:
        """The end of a leader's stream: the first sign of its death."""
        seen = self._observed.get(replica_id)
        if seen is not None and seen.lose(stream):
            log.info("replica %s: its leader's reports ended", replica_id)
            self._publish(replica_id)
            self._wake.set()

    def router_reported(self, router: admin_pb2.Router, stream: object) -> None:
        """One report of a router."""
        self._routers[router.id] = stream
        self.view.put_router(router)

    def router_lost(self, router_id: str, stream: object) -> None:
        """The end of a router's stream."""
        if self._routers.get(router_id) is stream:
            del self._routers[router_id]
            self.view.remove_router(router_id)

    # Holding the two against each other.

    def views(self) -> list[ReplicaView]:
        """Every replica as the reconciler sees it."""
        return [self._seen(record.id).view(record) for record in self._state.replicas.values()]

    async def _reconcile_once(self) -> bool:
        """Acts on the difference; True when a replica is draining."""
        wanted = {name: model.replicas for name, model in self._state.models.items()}
        actions = reconcile(wanted, self.views(), time.time())
        written = [action for action in actions if isinstance(action, Add | Retire | Forget)]
        if written:
            await self._write_down(written)
        for action in actions:
            self._act(action)
        if written:
            self._wake.set()
        for record in self._state.replicas.values():
            self._bring_adapters(record)
            await self._explain_pending(record)
        self._publish()
        return any(isinstance(action, Drain) for action in actions)

    async def _write_down(self, actions: list[Add | Retire | Forget]) -> None:
        async with self._writing:
            after = self._state.following()
            for action in actions:
                after = self._written(after, action)
            await self._commit(after)

    def _written(self, state: DesiredState, action: Add | Retire | Forget) -> DesiredState:
        if isinstance(action, Retire):
            return changes.retire(state, action.replica_id, time.time() + DEFAULT_DRAIN_S)
        if isinstance(action, Forget):
            self._observed.pop(action.replica_id, None)
            left = {name: record for name, record in state.replicas.items() if name != action.replica_id}
            return msgspec.structs.replace(state, replicas=left)
        ordinal = state.next_ordinal
        record = ReplicaRecord(id=f"{action.model}-{ordinal}", model=action.model, ordinal=ordinal)
        return msgspec.structs.replace(state, next_ordinal=ordinal + 1, replicas=state.replicas | {record.id: record})

    def _act(self, action: Action) -> None:
        if isinstance(action, Launch):
            self._begin(action.replica_id, "started", self._launch(action.replica_id))
        elif isinstance(action, Stop):
            self._begin(action.replica_id, "stopped", self._stop(action.replica_id))
        elif isinstance(action, Drain):
            self._begin(action.replica_id, "drained", self._ask_to_drain(action.replica_id))

    def _begin(self, replica_id: str, doing: str, work: Coroutine[None, None, None]) -> None:
        """Runs one replica's action; until it ends the reconciler leaves that replica alone."""
        seen = self._seen(replica_id)
        seen.busy = True

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                log.exception("replica %s", replica_id)
                seen.could_not(doing, error)
                await asyncio.sleep(TICK_S)
            finally:
                seen.busy = False
                self._wake.set()

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _launch(self, replica_id: str) -> None:
        spec = self._group(self._state.replicas[replica_id])
        await self._supervisor.start(spec)
        seen = self._seen(replica_id)
        seen.launched, seen.pending_reason = True, "its processes are being started"

    async def _stop(self, replica_id: str) -> None:
        await self._supervisor.stop(replica_id)
        self._seen(replica_id).launched = False

    async def _ask_to_drain(self, replica_id: str) -> None:
        seen = self._seen(replica_id)
        if seen.report is None or not seen.report.endpoint:
            return
        async with grpc.aio.insecure_channel(seen.report.endpoint, options=CHANNEL_OPTIONS) as channel:
            try:
                answer = await engine_pb2_grpc.EngineServiceStub(channel).Drain(engine_pb2.DrainRequest(), timeout=2)
                seen.unfinished = answer.unfinished
            except grpc.aio.AioRpcError as error:
                # It is asked again at the next tick, and no longer than until its patience ends.
                log.warning("replica %s does not answer Drain: %s", replica_id, error.details())

    def _serving(self, model: str) -> list[str]:
        """Endpoints of the model's replicas that serve."""
        found = [self._seen(record.id) for record in self._state.replicas.values() if record.model == model]
        return [seen.report.endpoint for seen in found if seen.serving and seen.report is not None]

    def _bring_adapters(self, record: ReplicaRecord) -> None:
        """Begins to close the gap between the adapters that a replica holds and those that it is to hold."""
        seen = self._seen(record.id)
        if not seen.serving or seen.report is None or record.drain_until or seen.adapters.busy:
            return
        wanted = {each.name: each.path for each in self._state.adapters.values() if each.model == record.model}
        gap = seen.adapters.due(adapters.difference(wanted, seen.report.adapters, self._pushes.names))
        if not gap.load and not gap.unload:
            return
        seen.adapters.busy = True

        async def bring(own: adapters.ReplicaAdapters, endpoint: str) -> None:
            try:
                await own.close_gap(endpoint, gap)
            except Exception:
                log.exception("replica %s: its adapters; trying again", record.id)
            await asyncio.sleep(ADAPTER_SETTLE_S)  # its own report of them is on the way
            own.busy = False
            self._wake.set()

        task = asyncio.get_running_loop().create_task(bring(seen.adapters, seen.report.endpoint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _explain_pending(self, record: ReplicaRecord) -> None:
        seen = self._seen(record.id)
        if seen.launched and seen.report is None and not record.drain_until:
            shortage = await self._supervisor.shortage(self._group(record))
            if shortage:
                seen.pending_reason = shortage

    def _group(self, record: ReplicaRecord) -> GroupSpec:
        model = self._state.models[record.model]
        return model.group(record.id, host=self._group_host, controller_address=self.controller_address)

    def _seen(self, replica_id: str) -> ObservedReplica:
        return self._observed.setdefault(replica_id, ObservedReplica())

    async def _commit(self, state: DesiredState) -> None:
        try:
            await self._store.commit(state)
        except Stale:
            # Another controller wrote: go on from what it wrote.
            self._state = await self._store.load()
            raise
        self._state = state
        self._wake.set()

    def _publish(self, replica_id: str | None = None) -> None:
        """Brings the view up to what is known: of one replica, or of everything."""
        if replica_id is None:
            for model in self._state.models.values():
                self.view.put_model(_model_message(model, self._state.adapters.values()))
            for gone in {replica.id for replica in self.view.replicas()} - set(self._state.replicas):
                self.view.remove_replica(gone)
        for record in self._state.replicas.values():
            if replica_id in (None, record.id):
                message = self._seen(record.id).message(record, self._state.models.get(record.model))
                self.view.put_replica(message)


def _model_message(model: ModelSpec, all_adapters: Iterable[AdapterRecord] = ()) -> admin_pb2.ModelDeployment:
    return admin_pb2.ModelDeployment(
        name=model.name,
        path=model.path,
        desired_replicas=model.replicas,
        tensor_parallel=model.tp,
        pipeline_parallel=model.pp,
        adapters=[
            admin_pb2.AdapterDeployment(name=adapter.name, path=adapter.path)
            for adapter in sorted(all_adapters, key=lambda adapter: adapter.name)
            if adapter.model == model.name
        ],
    )


def _revision_message(revision: ModelRevision) -> admin_pb2.ModelRevision:
    message = admin_pb2.ModelRevision(
        number=revision.number, what=revision.what, reason=revision.reason, model=_model_message(revision.model)
    )
    message.time.FromNanoseconds(round(revision.time * 1e9))
    return message
