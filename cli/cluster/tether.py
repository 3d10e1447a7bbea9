"""`python -m headway.cli.cluster.tether PARENT MODULE ARGUMENTS`: runs MODULE as a process that dies with its parent.

The kernel kills it when the supervisor ends, however that ends. Setting this up in the child itself, rather than
between fork and exec, leaves the supervisor free to have threads.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, module = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel was told.
        raise SystemExit(1)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
