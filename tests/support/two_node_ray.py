"""A Ray of two nodes on this machine, 127.0.0.2 and 127.0.0.3, with devices for one rank each, until stdin ends.

Prints one line of JSON: the address, and the environment that a process needs to join. (Ray takes 127.0.0.1 for a word
that stands for the machine's outer address.)
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from headway.controller.ray_runtime import CPU_DEVICE, OBJECT_STORE_BYTES, SYSTEM_CONFIG, RayRuntime, _set_environment


def start(address: str, temp_dir: Path, **options: Any) -> Any:
    """A node that plays a machine of its own."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    os.environ["HEADWAY_NODE_ADDRESS"] = address
    params: Any = RayParams(
        node_ip_address=address,
        num_cpus=0,
        resources={CPU_DEVICE: 1},
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        dashboard_agent_listen_port=0,
        temp_dir=str(temp_dir),
        **options,
    )
    head = "gcs_address" not in options
    node: Any = Node(params, head=head, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=head)
    return node


def main() -> None:
    os.environ["HEADWAY_PIN_CORES"] = "0"
    temp_dir = Path(tempfile.mkdtemp(prefix="headway-", dir="/tmp"))
    _set_environment(temp_dir)
    nodes = [start("127.0.0.2", temp_dir, _system_config=SYSTEM_CONFIG)]
    nodes.append(start("127.0.0.3", temp_dir, gcs_address=nodes[0].gcs_address))
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
    environment = {name: os.environ[name] for name in names}
    sys.stdout.write(json.dumps({"address": nodes[0].gcs_address, "environment": environment}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    for node in reversed(nodes):
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    RayRuntime(str(temp_dir)).clean_up()


if __name__ == "__main__":
    main()
