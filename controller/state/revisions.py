"""The history of each model's settings: numbered revisions, the last one in force."""

from __future__ import annotations

import msgspec

from .values import KEPT_REVISIONS, DesiredState, ModelRevision


def record_revisions(state: DesiredState, *, time: float, what: str, reason: str = "") -> DesiredState:
    """The state with a new revision of every model whose settings are not those of its last one.

    A model without history (it is new, or was stored before there were revisions) gets its first. The oldest of more
    than KEPT_REVISIONS are dropped; numbers go on.
    """
    histories = dict(state.revisions)
    for name, model in state.models.items():
        history = histories.get(name, ())
        if not history or history[-1].model != model:
            number = history[-1].number + 1 if history else 1
            made = ModelRevision(number=number, time=time, model=model, what=what, reason=reason)
            histories[name] = (*history, made)[-KEPT_REVISIONS:]
    return msgspec.structs.replace(state, revisions=histories)
