"""A worker group: the ranks of one replica, as processes that live and die together.

The leader is the process that calls `WorkerGroup.start`. It starts the first rank beside itself; a `RankLauncher`
starts the others. Each rank's process runs `run_rank`.
"""

from .errors import GroupFailed
from .group import WorkerGroup
from .launcher import RankHandle, RankLauncher, SubprocessLauncher
from .nodes.place import address_of_node, this_node
from .rank import run_rank
from .spec import RankSpec, check_group

__all__ = [
    "GroupFailed",
    "RankHandle",
    "RankLauncher",
    "RankSpec",
    "SubprocessLauncher",
    "WorkerGroup",
    "address_of_node",
    "check_group",
    "run_rank",
    "this_node",
]
