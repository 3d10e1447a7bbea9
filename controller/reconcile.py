"""From what is wanted and what is seen to what to do: a pure function of values, and one clock reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ..proto.headway.v1 import admin_pb2

READY = admin_pb2.REPLICA_STATE_READY


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as the reconciler sees it.

    `launched`: its worker group is in the supervisor's hands. `failed`: it cannot work and was given up.
    `unfinished`: requests that run or wait on it, None when unknown. `busy`: an earlier action is still under way.
    `connected`: its leader is reporting. `drain_until`: unix seconds, 0 when it shall serve.
    """

    id: str
    model: str
    ordinal: int
    state: admin_pb2.ReplicaState = admin_pb2.REPLICA_STATE_PENDING
    launched: bool = False
    connected: bool = False
    failed: bool = False
    busy: bool = False
    drain_until: float = 0.0
    unfinished: int | None = None
    used_pages: int = 0

    @property
    def leaving(self) -> bool:
        return self.drain_until > 0


class Add(msgspec.Struct, frozen=True):
    """Write down one more replica of the model."""

    model: str


class Retire(msgspec.Struct, frozen=True):
    """Write down that the replica shall drain and go."""

    replica_id: str


class Launch(msgspec.Struct, frozen=True):
    """Start the replica's worker group."""

    replica_id: str


class Drain(msgspec.Struct, frozen=True):
    """Tell the leader to take no requests, and ask what still runs."""

    replica_id: str


class Stop(msgspec.Struct, frozen=True):
    """Stop the replica's worker group."""

    replica_id: str


class Forget(msgspec.Struct, frozen=True):
    """Strike the replica off: nothing of it is left."""

    replica_id: str


Action = Add | Retire | Launch | Drain | Stop | Forget


def reconcile(wanted: Mapping[str, int], replicas: Iterable[ReplicaView], now: float) -> list[Action]:
    """What to do next. `wanted` is the number of replicas by model; a model that is not in it shall have none.

    Done as said, and seen again, it leads to a state in which there is nothing to do.
    """
    actions: list[Action] = []
    staying: dict[str, list[ReplicaView]] = {model: [] for model in wanted}
    for replica in replicas:
        if not replica.leaving:
            staying.setdefault(replica.model, []).append(replica)
        if not replica.busy:
            actions += _settle(replica, now)
    for model, present in staying.items():
        missing = wanted.get(model, 0) - len(present)
        actions += [Add(model)] * missing
        actions += [Retire(victim.id) for victim in sorted(present, key=cost_of_loss)[: max(0, -missing)]]
    return actions


def _settle(replica: ReplicaView, now: float) -> list[Action]:
    """The next step of one replica's life, if it is due."""
    if replica.leaving:
        if not replica.launched:
            return [Forget(replica.id)]
        # Nobody waits for a replica that cannot finish anything.
        done = replica.unfinished == 0 or now >= replica.drain_until or not replica.connected
        return [Stop(replica.id)] if done else [Drain(replica.id)]
    if replica.failed:
        return [Stop(replica.id)] if replica.launched else []
    return [] if replica.launched else [Launch(replica.id)]


def cost_of_loss(replica: ReplicaView) -> tuple[bool, bool, int, int, int]:
    """Sorts replicas by how little is lost with them: failed, not serving, least loaded, coldest cache, newest."""
    return (
        not replica.failed,
        replica.state == READY,
        replica.unfinished or 0,
        replica.used_pages,
        -replica.ordinal,
    )
