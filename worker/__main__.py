"""`python -m headway.worker`: one worker group without Ray, for benchmarks, debugging and tests.

Prints one line when it serves. Ctrl-C or SIGTERM ends it with code 0; a configuration that cannot work with 1; the
death of any rank with 70.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from ..core.errors import ConfigError
from ..core.logs import set_up_logs
from .group import GroupFailed, WorkerGroup, check_group
from .group.errors import EXIT_ENGINE_DEAD
from .options import parse

DRAIN_S = 5.0


def main() -> None:
    """Runs the group until a signal comes."""
    set_up_logs("leader")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        spec = parse()
        check_group(spec)  # before any rank is started
        group = WorkerGroup(spec)
        group.start()
    except (ConfigError, GroupFailed, OSError) as error:
        sys.stderr.write(f"headway worker: {error}\n")
        sys.stderr.flush()
        os._exit(1)  # the engine's thread may be stuck in a collective whose other side is gone
    sys.stdout.write(f"EngineService at {group.endpoint}, pids {' '.join(str(pid) for pid in group.pids)}\n")
    sys.stdout.flush()
    try:
        while not stop.wait(1.0):
            group.check_health()
        group.stop(DRAIN_S)
    except GroupFailed as error:
        sys.stderr.write(f"headway worker: {error}\n")
        sys.stderr.flush()
        os._exit(EXIT_ENGINE_DEAD)


if __name__ == "__main__":
    main()
