"""Changes of the desired state by operators, as functions from one state to the next and the steps that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ..core.errors import InvalidRequest, NotFound, Refused
from .reconcile import Add, ReplicaView, Retire, reconcile
from .state import DesiredState, ModelRevision, ModelSpec

MAX_REPLICAS = 1024
MAX_DRAIN_S = 24 * 3600.0

Views = Callable[[], list[ReplicaView]]


class Outcome(NamedTuple):
    """The state after a change, the change in words, and a line for each thing that follows from it."""

    state: DesiredState
    what: str
    steps: list[str]


Edit = Callable[[DesiredState], Outcome]


def scale(model: str, replicas: int, views: Views, now: float, patience_s: float) -> Edit:
    """Sets a model's number of replicas. Those that go drain for `patience_s` at most."""

    def edit(state: DesiredState) -> Outcome:
        spec = known_model(state, model)
        if replicas > MAX_REPLICAS:
            raise InvalidRequest(f"replicas must be at most {MAX_REPLICAS}, got {replicas}", field="replicas")
        after, steps = _resized(state, msgspec.structs.replace(spec, replicas=replicas), views(), now, patience_s)
        return Outcome(after, f"scale {model} to {replicas}", steps)

    return edit


def rollback(model: str, revision: int, views: Views, now: float, patience_s: float) -> Edit:
    """Gives a model the settings that its revision `revision` had; 0 is the one before the current.

    Replicas that go drain for `patience_s` at most.
    """

    def edit(state: DesiredState) -> Outcome:
        current = known_model(state, model)
        target = _chosen(model, state.revisions.get(model, ()), revision)
        fixed = [field for field in _differing(current, target.model) if field != "replicas"]
        if fixed:
            # Groups that run would stay as they are and new ones be others: two kinds under one name.
            message = (
                f"revision {target.number} of {model} has another {', '.join(fixed)}: only replicas can be set back"
            )
            raise Refused(message, field="revision")
        after, steps = _resized(state, target.model, views(), now, patience_s)
        if target.model != current:
            wanted = target.model.replicas
            steps.insert(
                0, f"set {model} back to revision {target.number}: {wanted} replica{'' if wanted == 1 else 's'}"
            )
        return Outcome(after, f"rollback {model} to revision {target.number}", steps)

    return edit


def drain(replica_id: str, now: float, patience_s: float) -> Edit:
    """Lets one replica go; the model's number of replicas stays, so that another one takes its place."""

    def edit(state: DesiredState) -> Outcome:
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
        after = retire(state.following(), replica_id, now + patience_s)
        return Outcome(after, f"drain {replica_id}", steps)

    return edit


def retire(state: DesiredState, replica_id: str, until: float) -> DesiredState:
    """The same state with the replica marked as one that goes."""
    record = msgspec.structs.replace(state.replicas[replica_id], drain_until=until)
    return msgspec.structs.replace(state, replicas=state.replicas | {replica_id: record})


def known_model(state: DesiredState, model: str) -> ModelSpec:
    """The model's settings. Raises NotFound, which names the models that there are."""
    spec = state.models.get(model)
    if spec is None:
        known = ", ".join(sorted(state.models)) or "none"
        raise NotFound(f"there is no model {model!r}; served: {known}", field="model")
    return spec


def _chosen(model: str, history: Sequence[ModelRevision], revision: int) -> ModelRevision:
    if revision == 0:
        if len(history) < 2:
            kept = f"revision {history[0].number} is the only one" if history else "it has no revisions"
            raise Refused(f"there is nothing to set {model} back to: {kept}", field="revision")
        return history[-2]
    for each in history:
        if each.number == revision:
            return each
    span = f"{history[0].number} to {history[-1].number}" if history else "none"
    raise NotFound(f"{model} has no revision {revision}; kept: {span}", field="revision")


def _differing(one: ModelSpec, other: ModelSpec) -> list[str]:
    return [field for field in ModelSpec.__struct_fields__ if getattr(one, field) != getattr(other, field)]


def _resized(
    state: DesiredState, wanted: ModelSpec, views: Sequence[ReplicaView], now: float, patience_s: float
) -> tuple[DesiredState, list[str]]:
    """The state with the model as `wanted`, those of its replicas that are too many on their way out; and the steps."""
    after = state.following(models=state.models | {wanted.name: wanted})
    own = [view for view in views if view.model == wanted.name]
    actions = reconcile({wanted.name: wanted.replicas}, own, now)
    added = sum(isinstance(action, Add) for action in actions)
    steps = [f"start {added} replica{'s' if added > 1 else ''} of {wanted.name}"] if added else []
    for action in actions:
        if isinstance(action, Retire):
            after = retire(after, action.replica_id, now + patience_s)
            steps.append(f"drain {action.replica_id}, then stop it")
    return after, steps
