"""Changes of the desired state by operators: checked, done once, and answered with the steps that follow."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import msgspec

from ..core.errors import InvalidRequest, NotFound, Refused, Stale
from ..proto.headway.v1 import admin_pb2
from .reconcile import Add, ReplicaView, Retire, reconcile
from .state import Answer, ChangeLine, DesiredState, ModelSpec
from .view import ClusterView

MAX_REPLICAS = 1024
MAX_DRAIN_S = 24 * 3600.0
MAX_TEXT = 256

Edit = Callable[[DesiredState], tuple[DesiredState, list[str]]]


def scale(model: str, replicas: int, views: Callable[[], list[ReplicaView]], now: float, patience_s: float) -> Edit:
    """Sets a model's number of replicas. Those that go drain for `patience_s` at most."""

    def edit(state: DesiredState) -> tuple[DesiredState, list[str]]:
        spec = state.models.get(model)
        if spec is None:
            known = ", ".join(sorted(state.models)) or "none"
            raise NotFound(f"there is no model {model!r}; served: {known}", field="model")
        if replicas > MAX_REPLICAS:
            raise InvalidRequest(f"replicas must be at most {MAX_REPLICAS}, got {replicas}", field="replicas")
        after = state.following(models=state.models | {model: _with_replicas(state, model, replicas)})
        steps: list[str] = []
        added = 0
        own = [view for view in views() if view.model == model]
        for action in reconcile({model: replicas}, own, now):
            if isinstance(action, Add):
                added += 1
            elif isinstance(action, Retire):
                after = retire(after, action.replica_id, now + patience_s)
                steps.append(f"drain {action.replica_id}, then stop it")
        if added:
            steps.insert(0, f"start {added} replica{'s' if added > 1 else ''} of {model}")
        return after, steps

    return edit


def drain(replica_id: str, now: float, patience_s: float) -> Edit:
    """Lets one replica go; the model's number of replicas stays, so that another one takes its place."""

    def edit(state: DesiredState) -> tuple[DesiredState, list[str]]:
        record = state.replicas.get(replica_id)
        if record is None:
            known = ", ".join(sorted(state.replicas)) or "none"
            raise NotFound(f"there is no replica {replica_id!r}; known: {known}", field="replica_id")
        if record.drain_until:
            raise Refused(f"replica {replica_id} is draining already", field="replica_id")
        wait = f"drain {replica_id} for at most {patience_s:g} s, then stop it"
        staying = [r for r in state.replicas.values() if r.model == record.model and not r.drain_until]
        steps = [wait]
        if len(staying) <= state.models[record.model].replicas:
            steps.append(f"start another replica of {record.model}")
        return retire(state.following(), replica_id, now + patience_s), steps

    return edit


def retire(state: DesiredState, replica_id: str, until: float) -> DesiredState:
    """The same revision with the replica marked as one that goes."""
    record = msgspec.structs.replace(state.replicas[replica_id], drain_until=until)
    return msgspec.structs.replace(state, replicas=state.replicas | {replica_id: record})


def _with_replicas(state: DesiredState, model: str, replicas: int) -> ModelSpec:
    return msgspec.structs.replace(state.models[model], replicas=replicas)


class Ledger:
    """Applies the Change header: stale versions, repeated keys, dry runs. Pure but for the clock."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def apply(
        self, state: DesiredState, change: admin_pb2.Change, request: bytes, what: str, edit: Edit
    ) -> tuple[DesiredState | None, admin_pb2.Effect]:
        """The state to commit, None when there is nothing to, and the answer.

        `request` is the serialized request without its header: a key used again for another request is refused.
        """
        for field in ("idempotency_key", "reason"):
            if len(getattr(change, field)) > MAX_TEXT:
                raise InvalidRequest(f"change.{field} must be at most {MAX_TEXT} characters", field=f"change.{field}")
        digest = hashlib.sha256(request).hexdigest()
        key = change.idempotency_key
        if key and (answer := state.answers.get(key)) is not None:
            if answer.digest != digest:
                message = f"change.idempotency_key {key!r} was used for another change"
                raise InvalidRequest(message, field="change.idempotency_key")
            return None, admin_pb2.Effect(version=answer.version, steps=answer.steps)
        expected = change.expected_version
        if expected and not state.changed_at <= expected <= self._view.version:
            raise Stale(f"the cluster was changed at version {state.changed_at}, after version {expected}; look again")
        after, steps = edit(state)
        if change.dry_run:
            return None, admin_pb2.Effect(version=self._view.version, steps=steps)
        version = self._view.advance()
        return self._written(after, change, digest, version, what, steps), admin_pb2.Effect(
            version=version, steps=steps
        )

    @staticmethod
    def _written(
        after: DesiredState, change: admin_pb2.Change, digest: str, version: int, what: str, steps: list[str]
    ) -> DesiredState:
        answers = after.answers
        if change.idempotency_key:
            answers = answers | {
                change.idempotency_key: Answer(digest=digest, version=version, steps=tuple(steps)),
            }
        line = ChangeLine(time=time.time(), version=version, what=what, reason=change.reason)
        return msgspec.structs.replace(after, changed_at=version, answers=answers, log=(*after.log, line))
