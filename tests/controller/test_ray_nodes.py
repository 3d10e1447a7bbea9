"""A group on two nodes of a Ray that runs already: placed by stages, and ended by Ray where no signal of ours goes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clusters import left_behind
from support.controller_process import ControllerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
SCRIPT = Path(__file__).parents[1] / "support" / "two_node_ray.py"


@pytest.fixture
def two_nodes() -> Iterator[dict[str, Any]]:
    """Their address, and the environment to join them; each has a device for one rank."""
    ray = subprocess.Popen([sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert ray.stdin is not None and ray.stdout is not None
    with ray.stdin, ray.stdout:
        yield json.loads(ray.stdout.readline())
    assert ray.wait(60) == 0


def test_stages_are_on_two_nodes_and_a_stopped_rank_there_is_replaced_with_its_group(
    two_nodes: dict[str, Any], tmp_path: Path
) -> None:
    controller = ControllerProcess(
        tmp_path / "controller.log",
        *("--ray-address", two_nodes["address"], "--pp", "2", "--replicas", "1", "--step-timeout", "4"),
        **two_nodes["environment"],
    )
    try:
        (before,) = controller.until(lambda replicas: [r.state for r in replicas.values()] == ["READY"]).values()
        _leader, _first, second = before.pids
        shares = ["memfd:headway-ring" in Path(f"/proc/{pid}/maps").read_text() for pid in before.pids]
        assert shares == [True, True, False], "the second stage has no memory in common with its leader"
        os.kill(second, signal.SIGSTOP)
        controller.until(
            lambda replicas: all(r.state == "READY" and r.incarnation != before.incarnation for r in replicas.values())
        )
        assert left_behind(before.pids) == []
    finally:
        assert controller.stop() == 0
