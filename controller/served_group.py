"""What runs inside a Serve replica: the leader of one worker group, and the launcher of its other ranks."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import ConfigError
from ..core.logs import set_up_logs
from ..core.specs import GroupSpec
from ..proto.headway.v1 import admin_pb2, control_pb2
from .log_files import to_log_file

if TYPE_CHECKING:
    from ..worker.group import WorkerGroup

log = logging.getLogger(__name__)

STOP_S = 8.0


class ServedGroup:
    """Serve's user class. Its constructor returns at once: how the start goes, the group reports by itself.

    A group that cannot work (ConfigError) says so and stays idle until it is deleted: another try would end the same.
    After any other failure the process exits at once, and Serve starts a new one; waiting for a failed health check
    instead would cost five seconds.
    """

    def __init__(self, spec: bytes, resource: str) -> None:
        self._spec = msgspec.json.decode(spec, type=GroupSpec)
        self._resource = resource
        self._group: WorkerGroup | None = None
        self._ready = False
        self._gave_up = False
        to_log_file(self._spec.replica_id)
        set_up_logs(f"leader {self._spec.replica_id}")
        keep_serve_on_loopback()
        # Not this thread: Serve counts a constructor that takes long as one that failed.
        threading.Thread(target=self._run, name="group", daemon=True).start()

    def _run(self) -> None:
        try:
            from ..worker.group import WorkerGroup
            from .ray_ranks import RayRankLauncher

            self._group = WorkerGroup(self._spec, launcher=RayRankLauncher(self._spec, self._resource))
            self._group.start()
            self._ready = True
        except (ConfigError, ImportError) as error:
            log.error("the group cannot start: %s", error)
            self._gave_up = True
            last_words(self._spec, admin_pb2.REPLICA_STATE_STOPPED, str(error))
        except BaseException as error:
            log.exception("the group failed to start")
            last_words(self._spec, admin_pb2.REPLICA_STATE_UNHEALTHY, f"{type(error).__name__}: {error}")
            leave()

    async def check_health(self) -> None:
        """Called by Serve every second."""
        if self._gave_up or self._group is None or not self._ready:
            return
        try:
            await asyncio.to_thread(self._group.check_health)
        except Exception:
            log.exception("the group is not healthy")
            leave()

    def __del__(self) -> None:
        """Called by Serve when the replica is to go."""
        group = getattr(self, "_group", None)
        if group is not None:
            try:
                group.stop(STOP_S)
            except Exception:
                log.exception("the group did not stop cleanly")


def keep_serve_on_loopback() -> None:
    """Serve opens a port for calls between deployments, on every interface, and unpickles what comes there.

    Nobody calls a worker group through Serve. The port is opened after the user class was made: this comes in time.
    """
    replica: Any = importlib.import_module("ray.serve._private.replica")
    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", "127.0.0.1"))


def leave() -> None:
    """Ends the process now, without a thread or destructor having a say."""
    logging.shutdown()
    os._exit(1)


def last_words(spec: GroupSpec, state: admin_pb2.ReplicaState, reason: str) -> None:
    """Tells the controller why there is no group; a controller that cannot be reached is not waited for."""
    import grpc

    from ..proto.headway.v1 import control_pb2_grpc

    report = control_pb2.ReportReplicaRequest(replica_id=spec.replica_id, state=state, reason=reason)
    try:
        with grpc.insecure_channel(spec.controller_address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            control_pb2_grpc.ControlServiceStub(channel).ReportReplica(iter([report]), timeout=2)
    except grpc.RpcError as error:
        log.warning("could not tell the controller: %s", error)
