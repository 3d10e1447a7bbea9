"""`python -m headway.worker`, with the stages after the first on a node of their own: another address of the loopback,
or a network namespace.

    python spanning_worker.py OWN-ADDRESS FAR-ADDRESS NAMESPACE [options of headway.worker]

NAMESPACE is - for none. Ranks on the other node are out of the leader's reach: nothing ties them to its process, and
its handles of them kill nothing, as when the whole node is cut off. So they have to end by themselves.
"""

import os
import subprocess
import sys

from headway.worker import __main__ as worker
from headway.worker.group import RankHandle, RankSpec, SubprocessLauncher, WorkerGroup


class FarRank:
    node = "far"
    beside = False

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def alive(self) -> bool:
        """That it failed is not heard here, either: the control link has to tell."""
        return self._process.poll() != 0

    def kill(self) -> None:
        pass


class SpanningLauncher:
    def __init__(self, tp: int, address: str, far_address: str, namespace: str) -> None:
        self.address = address
        self._tp = tp
        self._far_address = far_address
        self._enter = [] if namespace == "-" else ["ip", "netns", "exec", namespace]
        self._here = SubprocessLauncher()

    def launch(self, rank: RankSpec) -> RankHandle:
        if rank.rank < self._tp:
            return self._here.launch(rank)
        process = subprocess.Popen(
            [*self._enter, sys.executable, "-m", "headway.worker.group"],
            stdin=subprocess.PIPE,
            env={**os.environ, "HEADWAY_NODE_ADDRESS": self._far_address},
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(rank.encode())
        process.stdin.close()
        return FarRank(process)


def main() -> None:
    own, far, namespace = sys.argv[1:4]
    del sys.argv[1:4]
    os.environ["HEADWAY_PIN_CORES"] = "0"  # both nodes are on the same cores, and claim them apart
    make = WorkerGroup
    worker.WorkerGroup = lambda spec: make(spec, SpanningLauncher(spec.tp, own, far, namespace))  # type: ignore[misc]
    worker.main()


if __name__ == "__main__":
    main()
