"""What a supervisor tells of the start, to the terminal or over a pipe as one JSON line each."""

from __future__ import annotations

import msgspec

from .files import ClusterDocument


class Step(msgspec.Struct, frozen=True, tag="step"):
    """A part of the start begins, and the one before is done."""

    text: str


STOPPING = Step("Stopping")
"""The end begins, whether the part before was done or not."""


class ReplicaProgress(msgspec.Struct, frozen=True, tag="replica"):
    """Where one replica is; `loaded` is the share of its weights, 0 to 1."""

    id: str
    state: str
    loaded: float
    reason: str = ""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The cluster serves."""

    document: ClusterDocument


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The cluster is not there, or no longer. `next_step` says what to do."""

    message: str
    next_step: str = ""


Event = Step | ReplicaProgress | Ready | Failed


def encode(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def decode(line: bytes) -> Event:
    """Raises msgspec.DecodeError for anything else."""
    event: Event = msgspec.json.decode(line, type=Event)
    return event
