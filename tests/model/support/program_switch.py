"""Turns programs (worker/execution/program.py) off and on again in rank processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass

from rank_group import RankGroup

from headway.worker.execution.program import SWITCH
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import Communicator


@dataclass(frozen=True)
class Switch:
    """Sets what the next model that is loaded goes by."""

    value: str

    def __call__(self, comm: Communicator) -> None:
        os.environ[SWITCH] = self.value


@dataclass(frozen=True)
class Program:
    """Whether the rank's runner has a program."""

    def __call__(self, comm: Communicator) -> bool:
        (runner,) = [made for made in gc.get_objects() if isinstance(made, Runner) and made.comm is comm]
        return runner.program is not None


def both_ways(group: RankGroup) -> Iterator[bool]:
    """Whether programs are on, for each of the two."""
    for used in (True, False):
        group.run(Switch("1" if used else "0"))
        yield used
    group.run(Switch("1"))
