"""Ray: started inside this process for one machine, or joined where it runs already."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)

# A socket's path holds 107 bytes and Ray's own part of it takes 70: the directory's name must be short.
TEMP_ROOT = Path("/tmp")
TEMP_PREFIX = "headway-"
# Ray's object store carries nothing of ours; this is the least it takes.
OBJECT_STORE_BYTES = 80 * 2**20
# A dead node is seen in two seconds at most instead of thirteen. Any faster, and a machine that starves this process
# for a moment loses its only node.
SYSTEM_CONFIG = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 10,
    # Ray would start as many processes at once as there are CPUs to give, and it gives none here.
    "worker_maximum_startup_concurrency": os.cpu_count() or 1,
    # Ray runs its workers at niceness 15, behind whatever else the machine does; ours answer requests.
    "worker_niceness": 0,
}
CPU_DEVICE = "headway_device"


class RayRuntime:
    """A Ray that this process started (`start`) or joined (`join`). `stop` undoes it; both block."""

    def __init__(self, temp_dir: str = "") -> None:
        """`temp_dir` is an empty directory for Ray's files; without one it is made. `stop` removes it."""
        self.temp_dir = Path(temp_dir) if temp_dir else None
        self._node: Any = None

    def start(self, cpu_devices: int) -> None:
        """Starts Ray on the loopback interface with token authentication, and Serve without proxies.

        Ranks on CPU take one `headway_device` each, of which there are `cpu_devices`: they share cores, so that the
        number of cores is no limit. GPUs are counted by Ray.
        """
        if self.temp_dir is None:
            self.temp_dir = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=TEMP_ROOT))
        _set_environment(self.temp_dir)
        import ray
        from ray._private import services
        from ray._private.node import Node
        from ray._private.parameter import RayParams

        # Serve takes two seconds to import: meanwhile Ray's own processes start.
        importing = threading.Thread(target=importlib.import_module, args=("ray.serve",), name="import", daemon=True)
        importing.start()

        # Ray replaces 127.0.0.1 by the machine's outer address, and then listens on every interface.
        services.resolve_ip_for_localhost = lambda host: host

        class Head(Node):
            """A head node without Ray's dashboard, which this process replaces."""

            def start_api_server(self, **_: Any) -> None:
                return

        params_type: Any = RayParams
        params = params_type(
            node_ip_address="127.0.0.1",
            # Nothing of ours takes CPUs; with some to give, Ray starts an idle worker for each before it is ready.
            num_cpus=0,
            resources={CPU_DEVICE: cpu_devices},
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            include_log_monitor=False,
            no_monitor=True,
            dashboard_agent_listen_port=0,
            temp_dir=str(self.temp_dir),
            _system_config=SYSTEM_CONFIG,
        )
        self._node = Head(params, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)
        importing.join()
        _quiet()
        ray.init(
            address=self._node.gcs_address,
            namespace="headway",
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self.temp_dir),
        )
        _start_serve()

    def join(self, address: str) -> None:
        """Connects to the Ray at `address` and starts Serve there, without proxies, if nobody has."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        _quiet()
        ray.init(address=address, namespace="headway", log_to_driver=False, logging_level=logging.ERROR)
        _start_serve()

    def stop(self) -> None:
        """Ends the Ray that was started, with every process of it, or leaves the one that was joined. Idempotent."""
        import ray
        import ray.serve

        untyped: Any = ray
        below = psutil.Process().children(recursive=True) if self._node is not None else []
        if self._node is not None:
            try:
                untyped.serve.shutdown()
            except Exception:
                log.exception("Serve did not shut down; its processes end with Ray")
        untyped.shutdown()
        if self._node is not None:
            self._node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            self._node = None
            _kill(below)
        self.clean_up()

    def clean_up(self) -> None:
        """Removes the temporary directory."""
        if self.temp_dir is not None:
            shutil.rmtree(self.temp_dir, ignore_errors=True)
            self.temp_dir = None


def _set_environment(temp_dir: Path) -> None:
    """What Ray's processes inherit, and with them every worker."""
    token = temp_dir / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_enable_metrics_collection="0",
        RAY_DEDUP_LOGS="0",
        RAY_SERVE_LOG_TO_STDERR="0",
    )
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _kill(processes: list[psutil.Process]) -> None:
    """Ends what Ray leaves to notice by itself that it is alone, which takes its agents ten seconds and more."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def _quiet() -> None:
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _start_serve() -> None:
    from ray import serve
    from ray.serve.config import ProxyLocation

    serve.start(proxy_location=ProxyLocation.Disabled)
    _quiet()
