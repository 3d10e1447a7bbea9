"""Cleans up when the supervisor is killed in a way that it cannot answer.

The kernel takes the supervisor's children along, but some of Ray's processes only look for their parent now and then,
and nobody is left to remove files. The reaper holds the reading end of a pipe whose other end only the supervisor has:
when the supervisor is gone, however it went, reading ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .files import Files
from .teardown import clean_up_after, running


def start_reaper(root: Path, cluster_id: str) -> subprocess.Popen[bytes]:
    """Starts one for the cluster of this process, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "headway.cli.cluster.reaper", str(root), cluster_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    files, cluster_id = Files(Path(sys.argv[1])), sys.argv[2]
    sys.stdin.buffer.read()
    record = files.read_record()
    # A cluster that was started meanwhile in the same place has cleaned up itself.
    if record is not None and record.cluster_id == cluster_id and running(files) is None:
        clean_up_after(files)


if __name__ == "__main__":
    main()
