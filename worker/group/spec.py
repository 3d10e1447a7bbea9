"""What a rank's process is started with."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...core.specs import GroupSpec
from ..model.config import read_outline
from ..model.split import split_model
from ..parallel.topology import Topology
from .nodes.endpoints import Endpoints


class RankSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of a group. All values are plain: JSON carries it.

    `control` is the name of the leader's control socket in the abstract namespace of Unix sockets, where `token` proves
    that the caller was started by the leader. Plans and results travel through memory that is handed over there. A rank
    that is not on `leader_node` meets the leader at `endpoints` instead.
    """

    group: GroupSpec
    rank: int
    rendezvous: str
    control: str
    token: str
    leader_pid: int
    leader_node: str
    endpoints: Endpoints | None = None

    @property
    def samples(self) -> bool:
        """Whether the results come from this rank."""
        return self.rank == sampling_rank(self.group)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> RankSpec:
        return msgspec.json.decode(data, type=RankSpec)


def sampling_rank(group: GroupSpec) -> int:
    """The first of the last stage."""
    return (group.pp - 1) * group.tp


def check_group(group: GroupSpec) -> None:
    """Reads config.json, no weights, and needs no torch. Raises ConfigError when no rank could hold its part of it."""
    group.check()
    split_model(read_outline(Path(group.model_path)), Topology(0, group.tp, group.pp))
