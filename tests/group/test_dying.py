"""A group that dies is gone soon, whatever hangs meanwhile."""

import subprocess
import sys

from headway.worker.group.errors import EXIT_ENGINE_DEAD

SCRIPT = """
import threading
from headway.core.specs import GroupSpec
from headway.worker.group import WorkerGroup, group

class Hanging:
    def dump_stacks(self): pass
    def kill(self): threading.Event().wait()

group.DIE_S = 0.2
dying = WorkerGroup(GroupSpec(replica_id="test", model_name="test", model_path="/nowhere"))
dying._followers = Hanging()
dying._die("a test")
"""


def test_ranks_that_cannot_be_killed_do_not_hold_it():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_ENGINE_DEAD, ended.stderr
