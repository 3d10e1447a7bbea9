"""The other ranks of a group as Ray actors, in the placement group that Serve made for the leader."""

from __future__ import annotations

import os
import signal
from functools import cached_property
from typing import Any

import ray
from ray.util import get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ..core.logs import set_up_logs
from ..core.specs import GroupSpec
from ..worker.group import RankHandle, RankSpec, address_of_node, this_node
from .devices import actor_options
from .log_files import to_log_file


class RankActor:
    """One rank. Its process runs `run_rank` once, and ends with it."""

    def whoami(self) -> tuple[int, str, str]:
        """Process id, the node's address, and what tells nodes apart."""
        return os.getpid(), node_ip(), this_node()

    def run(self, encoded: bytes) -> None:
        """Returns never: the process ends when the rank does."""
        from ..worker.group import run_rank

        rank = RankSpec.decode(encoded)
        name = f"{rank.group.replica_id}.rank{rank.rank}"
        to_log_file(name)
        set_up_logs(f"rank {name}")
        code = 1
        try:
            run_rank(rank)
            code = 0
        finally:
            os._exit(code)


class RayRank:
    """The handle of one rank. Who it is becomes known once its process is up; asking earlier waits."""

    def __init__(self, actor: Any, run: Any) -> None:
        self._actor = actor
        self._run = run
        self._who = actor.whoami.remote()

    @cached_property
    def _identity(self) -> tuple[int, str, bool]:
        pid, node, identity = ray.get(self._who)
        return int(pid), str(node), identity == this_node()

    @property
    def pid(self) -> int:
        return self._identity[0]

    @property
    def node(self) -> str:
        return self._identity[1]

    @property
    def beside(self) -> bool:
        return self._identity[2]

    def alive(self) -> bool:
        """Ray learns of a process's end from its socket, within milliseconds."""
        ended, _ = ray.wait([self._run], timeout=0)
        return not ended

    def kill(self) -> None:
        # Quicker than by Ray, where the process id means something here.
        if "_identity" in self.__dict__ and self.beside and self.alive():
            os.kill(self.pid, signal.SIGKILL)
        ray.kill(self._actor, no_restart=True)


class RayRankLauncher:
    """Meets RankLauncher. Rank r runs in the bundle of its stage, r // tp, and takes one device of it."""

    def __init__(self, group: GroupSpec, resource: str) -> None:
        self._tp = group.tp
        self._options = actor_options(resource, 1.0)
        self._placement: Any = get_current_placement_group()

    @cached_property
    def address(self) -> str | None:
        """Ours for other nodes, where Ray placed stages on more than one."""
        nodes = placement_group_table(self._placement)["bundles_to_node_id"].values()
        return address_of_node(node_ip()) if len(set(nodes)) > 1 else None

    def launch(self, rank: RankSpec) -> RankHandle:
        where = PlacementGroupSchedulingStrategy(
            placement_group=self._placement,
            placement_group_bundle_index=rank.rank // self._tp,
        )
        # Two calls at once: one runs the rank for ever, the other says who it is.
        options = self._options | {"scheduling_strategy": where, "max_concurrency": 2, "max_restarts": 0}
        actor: Any = ray.remote(RankActor).options(**options).remote()
        return RayRank(actor, actor.run.remote(rank.encode()))


def node_ip() -> str:
    """The address by which this node is known to Ray's other nodes."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
