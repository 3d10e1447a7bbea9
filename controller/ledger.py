"""What every change by an operator goes through: done once, on what the operator saw, and written down."""

from __future__ import annotations

import hashlib
import time

import msgspec
from google.protobuf.message import Message

from ..core.errors import InvalidRequest, Stale
from ..proto.headway.v1 import admin_pb2
from .changes import Edit, Outcome
from .state import Answer, ChangeLine, DesiredState, record_revisions
from .view import ClusterView

MAX_TEXT = 256


class Ledger:
    """Applies the Change header: stale versions, repeated keys, dry runs. Pure but for the clock."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def apply(
        self, state: DesiredState, change: admin_pb2.Change, bare: Message, edit: Edit
    ) -> tuple[DesiredState | None, admin_pb2.Effect]:
        """The state to commit, None when there is nothing to, and the answer.

        `bare` is the request without its header: a key used again for another request is refused.
        """
        for field in ("idempotency_key", "reason"):
            if len(getattr(change, field)) > MAX_TEXT:
                raise InvalidRequest(f"change.{field} must be at most {MAX_TEXT} characters", field=f"change.{field}")
        digest = _digest(bare)
        key = change.idempotency_key
        if key and (answer := state.answers.get(key)) is not None:
            if answer.digest != digest:
                message = f"change.idempotency_key {key!r} was used for another change"
                raise InvalidRequest(message, field="change.idempotency_key")
            return None, admin_pb2.Effect(version=answer.version, steps=answer.steps)
        expected = change.expected_version
        if expected and not state.changed_at <= expected <= self._view.version:
            raise Stale(f"the cluster was changed at version {state.changed_at}, after version {expected}; look again")
        outcome = edit(state)
        if change.dry_run:
            return None, admin_pb2.Effect(version=self._view.version, steps=outcome.steps)
        version = self._view.advance()
        effect = admin_pb2.Effect(version=version, steps=outcome.steps)
        return _written(outcome, change, digest, version), effect


def _written(outcome: Outcome, change: admin_pb2.Change, digest: str, version: int) -> DesiredState:
    """The state with the change in its log, its key and, when it changed a model's settings, its revisions."""
    after, what, steps = outcome
    now = time.time()
    answers = after.answers
    if change.idempotency_key:
        answers = answers | {change.idempotency_key: Answer(digest=digest, version=version, steps=tuple(steps))}
    line = ChangeLine(time=now, version=version, what=what, reason=change.reason)
    after = msgspec.structs.replace(after, changed_at=version, answers=answers, log=(*after.log, line))
    return record_revisions(after, time=now, what=what, reason=change.reason)


def _digest(request: Message) -> str:
    # With its type: requests of two kinds may have the same bytes.
    kind = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(kind + b"\0" + request.SerializeToString(deterministic=True)).hexdigest()
