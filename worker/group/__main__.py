"""The process of a rank that a SubprocessLauncher started: its spec comes on stdin."""

from __future__ import annotations

import signal
import sys

from ...core.logs import set_up_logs
from .nodes.place import this_node
from .process import die_with_parent
from .rank import run_rank
from .spec import RankSpec


def main() -> None:
    """Runs the rank. Ctrl-C in a terminal reaches it too, but only the leader decides when a group stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec = RankSpec.decode(sys.stdin.buffer.read())
    if spec.leader_node == this_node():
        die_with_parent(spec.leader_pid)
    set_up_logs(f"rank{spec.rank}")
    run_rank(spec)


if __name__ == "__main__":
    main()
