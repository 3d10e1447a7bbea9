"""NCCL's part in how a group ends: Headway's own watch over the ranks decides, and NCCL's comes second.

A step without progress for `step_timeout` makes the leader kill every rank, and a rank whose leader is gone ends itself
(worker/group). Both need nothing of NCCL. Its own watchdog is the second line, for what the first cannot see: while a
group loads, and should both fail. So its timeouts are always the longer ones, and when one passes the process is torn
down at once, without an orderly end of communicators, which could hang on a peer that is gone.
"""

from __future__ import annotations

import os
from datetime import timedelta

from torch.distributed import distributed_c10d

LOADING_S = 1800.0  # between the first rank that has loaded and the last
LEAST_S = 60.0
TIMES = 2.0  # of the time after which the leader kills the group

DEFAULTS = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",  # tear the process down, and do not clean up first
    "TORCH_NCCL_BLOCKING_WAIT": "0",  # the host waits for no collective
    "NCCL_DEBUG": "WARN",
}


def prepare_environment(*, on_loopback: bool) -> None:
    """Before the first communicator. What is set already stays; on one node NCCL listens on the loopback only."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if on_loopback:
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


def settle(step_timeout_s: float) -> None:
    """Once the group has loaded: communicators' timeouts come down to a little more than the leader's patience."""
    timeout = timedelta(seconds=max(LEAST_S, TIMES * step_timeout_s))
    for group in list(distributed_c10d._world.pg_map):  # those that this rank is in
        distributed_c10d._set_pg_timeout(timeout, group)


def abort() -> None:
    """Leaves every communicator without waiting for anybody: the other ranks may be gone or stuck."""
    distributed_c10d._abort_process_group()
