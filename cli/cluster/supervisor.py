"""Brings a cluster up, watches over its processes, and takes it down: the heart of `headway up`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ...core.errors import ConfigError
from ...proto.headway.v1 import admin_pb2
from .admin import ClusterMirror, state_name, watch
from .children import Child, spawn
from .events import STOPPING, Event, Failed, Ready, ReplicaProgress, Step
from .files import ClusterDocument, Files, Record
from .options import UpOptions
from .ports import check_free
from .processes import CLUSTER_ID, boot_id, family, identify, marked, send, wait_gone
from .reaper import start_reaper
from .teardown import clean_up_after

POLL_S = 0.2
WRITE_EVERY_S = 1.0
STOP_S = {"router": 4.0, "controller": 15.0}
# Before the cluster serves there is nothing to finish, and a controller that starts Ray does not listen.
STOP_STARTING_S = 1.0
HOST = "127.0.0.1"


class StartFailed(Exception):
    """The cluster did not come up, or did not stay up; says why."""


class Supervisor:
    """One cluster. `run` belongs to the process's main thread: its children die with that thread."""

    def __init__(self, options: UpOptions, tell: Callable[[Event], None], files: Files | None = None) -> None:
        self._options = options
        self._say = tell
        self._files = files or Files()
        me = identify(os.getpid())
        assert me is not None
        self._record = Record(cluster_id=uuid.uuid4().hex, boot_id=boot_id(), supervisor=me, processes=[], temp_dir="")
        self._children: list[Child] = []
        self._mirror = ClusterMirror()
        self._news: SimpleQueue[admin_pb2.WatchClusterResponse] = SimpleQueue()
        self._told: dict[str, ReplicaProgress] = {}
        self._document: ClusterDocument | None = None
        self._write_next = 0.0
        self._signals = 0
        self._signal = signal.SIGHUP

    def run(self) -> int:
        """Until a signal (0, or 128 and its number before the cluster served) or a failure (1).

        Whatever happens, nothing of the cluster is left.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._files.make()
            with self._files.locked() as ours:
                if not ours:
                    raise ConfigError("a cluster runs here already: see `headway status`, or stop it by `headway down`")
                return self._run_locked()
        except (ConfigError, OSError) as error:
            self._tell(Failed(str(error)))
            return 1

    def _run_locked(self) -> int:
        clean_up_after(self._files)
        check_free(self._options.ports())
        self._record.temp_dir = tempfile.mkdtemp(prefix="headway-", dir="/tmp")
        self._write_down(now=True)
        reaper = start_reaper(self._files.root, self._record.cluster_id)
        failure: Failed | None = None
        try:
            self._start()
            self._watch_over()
        except StartFailed as error:
            failure = Failed(str(error), f"Logs: {self._files.logs}")
        finally:
            self._tell(STOPPING)
            self._take_down()
            reaper.kill()
            reaper.wait()
        if failure is not None:
            self._tell(failure)
            return 1
        return 0 if self._document is not None else 128 + self._signal

    def _tell(self, event: Event) -> None:
        """Says it. When nobody can hear any more, because the terminal is gone, that is a signal to stop."""
        try:
            self._say(event)
        except OSError:
            self._signals = max(self._signals, 1)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        self._signal = signal.Signals(number)

    @property
    def _stopping(self) -> bool:
        return self._signals > 0

    @property
    def _in_a_hurry(self) -> bool:
        """The second Ctrl-C: kill instead of stop."""
        return self._signals > 1

    # Coming up.

    def _start(self) -> None:
        ports = self._options.ports()
        self._tell(Step("Starting Ray"))
        controller = self._spawn("controller", "headway.controller", *self._controller_flags(ports))
        listening = self._announced(controller, "listening")
        if listening is None:
            return
        admin_grpc = f"{HOST}:{listening['grpc_port']}"
        router = self._spawn(
            "router",
            "headway.router",
            *("--controller", admin_grpc, "--host", HOST, "--grace", "3"),
            *("--grpc-port", str(ports["grpc"]), "--http-port", str(ports["http"])),
        )
        if self._announced(controller, "ray") is None:
            return
        self._tell(Step("Starting the replicas"))
        watch(admin_grpc, self._news.put)
        while not self._stopping and not self._serves(router):
            self._attend()
        if self._stopping:
            return
        front = next(iter(self._mirror.routers.values()))
        self._document = ClusterDocument(
            grpc=front.grpc_address,
            http=front.http_address,
            admin=f"http://{HOST}:{listening['http_port']}",
            admin_grpc=admin_grpc,
            replicas=self._mirror.entries(),
            pids=[],
            logs=str(self._files.logs),
        )
        self._write_down(now=True)
        self._tell(Ready(self._document))

    def _controller_flags(self, ports: dict[str, int]) -> list[str]:
        options = self._options
        flags = {
            "--model": options.model,
            "--model-name": options.model_name,
            "--replicas": options.replicas,
            "--tp": options.tp,
            "--pp": options.pp,
            "--device": options.device,
            "--host": HOST,
            "--grpc-port": ports["admin_grpc"],
            "--http-port": ports["admin"],
            "--ray-temp-dir": self._record.temp_dir,
        }
        return ["--announce", *(f"{flag}={value}" for flag, value in flags.items()), *options.engine]

    def _spawn(self, name: str, module: str, *arguments: str) -> Child:
        environment = os.environ | {
            CLUSTER_ID: self._record.cluster_id,
            "HEADWAY_LOG_DIR": str(self._files.logs),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }
        child = spawn(name, module, arguments, environment, self._files.logs / f"{name}.log")
        self._children.append(child)
        self._write_down(now=True)
        return child

    def _announced(self, child: Child, event: str) -> dict[str, Any] | None:
        """Waits for the child to announce this; None when a signal came first. Raises StartFailed when it fails."""
        while not self._stopping:
            said = child.announcement(POLL_S)
            if said is not None and said.get("event") == event:
                return said
            self._check_children()
        return None

    def _serves(self, router: Child) -> bool:
        wanted = sum(model.desired_replicas for model in self._mirror.models.values())
        ready = [r for r in self._mirror.replicas.values() if r.state == admin_pb2.REPLICA_STATE_READY]
        return 0 < wanted <= len(ready) and any(_answers(each) for each in self._mirror.routers.values())

    # Staying up.

    def _watch_over(self) -> None:
        while not self._stopping:
            self._attend()

    def _attend(self) -> None:
        """One turn: news of the cluster, deaths of children, and the files brought up to date."""
        try:
            message = self._news.get(timeout=POLL_S)
            self._mirror.take(message)
            self._tell_replicas()
        except Empty:
            pass
        self._check_children()
        self._write_down()

    def _tell_replicas(self) -> None:
        if self._document is not None:
            return
        for replica in self._mirror.replicas.values():
            if replica.state == admin_pb2.REPLICA_STATE_STOPPED:
                raise StartFailed(f"{replica.id} cannot start: {replica.reason}")
            news = ReplicaProgress(replica.id, state_name(replica), round(replica.loaded, 3), replica.reason)
            if self._told.get(replica.id) != news:
                self._told[replica.id] = news
                self._tell(news)

    def _check_children(self) -> None:
        for child in self._children:
            if child.ended() and not self._stopping:
                raise StartFailed(child.epitaph())

    def _write_down(self, *, now: bool = False) -> None:
        """Keeps both files true: at once, or else when a second has passed since the last look at the processes."""
        if not now and time.monotonic() < self._write_next:
            return
        self._write_next = time.monotonic() + WRITE_EVERY_S
        members = family(os.getpid())
        if members != self._record.processes:
            self._record.processes = members
            self._files.write(self._files.record, self._record)
        if self._document is not None:
            pids = sorted(process.pid for process in members)
            if now or (pids, self._mirror.entries()) != (self._document.pids, self._document.replicas):
                self._document.pids, self._document.replicas = pids, self._mirror.entries()
                self._files.write(self._files.cluster, self._document)

    # Going down.

    def _take_down(self) -> None:
        """Stops children, last one first, and kills what does not stop or is asked for twice."""
        me = os.getpid()
        members = {process for process in family(me) if process.pid != me}
        for child in reversed(self._children):
            send([child.identity], signal.SIGTERM)
            patience = STOP_STARTING_S if self._document is None else STOP_S[child.name]
            wait_gone([child.identity], patience, lambda: self._in_a_hurry)
        members |= {process for process in (*family(me), *marked(self._record.cluster_id)) if process.pid != me}
        for child in self._children:
            child.kill()
        left = wait_gone(members, 0.0)
        send(left, signal.SIGKILL)
        wait_gone(left, 5.0)
        shutil.rmtree(self._record.temp_dir, ignore_errors=True)
        self._files.remove()


def _answers(router: admin_pb2.Router) -> bool:
    """Whether the router's front says that it serves."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(router.grpc_address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
