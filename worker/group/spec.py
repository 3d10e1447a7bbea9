"""What a rank's process is started with."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...core.specs import GroupSpec


class RankSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of a group. All values are plain: JSON carries it.

    `control` is the name of the leader's control socket in the abstract namespace of Unix sockets, where `token` proves
    that the caller was started by the leader. Plans and results travel through memory that is handed over there.
    """

    group: GroupSpec
    rank: int
    rendezvous: str
    control: str
    token: str
    leader_pid: int

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> RankSpec:
        return msgspec.json.decode(data, type=RankSpec)


def check_group(group: GroupSpec) -> None:
    """Reads config.json and no weights. Raises ConfigError when no rank could hold its part of it."""
    # The table of architectures brings torch along: importing this package must not, and bad numbers need not wait.
    group.check()
    from ..model.registry import read_config
    from ..model.split import split_model
    from ..parallel.topology import Topology

    split_model(read_config(Path(group.model_path)), Topology(0, group.tp, group.pp))
