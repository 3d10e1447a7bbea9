"""The leader: keeps the ranks, runs the engine, and ends the whole when any part fails. It computes no tensor."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import uuid
from pathlib import Path

import msgspec

from ...core.errors import ConfigError
from ...core.servers import reachable_host
from ...core.specs import GroupSpec
from ...core.wire import sampling_to_proto
from ...proto.headway.v1 import admin_pb2, engine_pb2
from ..engine import Accept, Engine, Stop
from ..execution.dtype import settle_dtype
from ..execution.info import ModelInfo
from ..pages import PagePool
from ..scheduler import Limits, Scheduler
from ..service import AdapterRegistry, Hub, ServiceThread, Standing
from ..service.servicer import ServedEngine
from ..structured.compiler import GrammarCompiler
from ..structured.crew import Crew
from ..tiers import Progress, Tiers
from ..tiers.counts import PageCounts
from .adapters import AdapterLoader
from .errors import EXIT_ENGINE_DEAD, GroupFailed
from .followers import Followers
from .launcher import RankLauncher, SubprocessLauncher
from .nodes.place import free_port, in_url
from .plane import StepPlane
from .process import dump_stacks, dump_stacks_on_signal, spare_collector
from .pulse import ping_interval

log = logging.getLogger(__name__)

STACKS_S = 0.05
LEAVE_S = 5.0
DIE_S = 2.0


class WorkerGroup:
    """One replica. `start` it once; from then on its process ends with code 70 as soon as any rank fails."""

    def __init__(self, spec: GroupSpec, launcher: RankLauncher | None = None) -> None:
        self.spec = spec
        self.incarnation = uuid.uuid4().hex[:16]
        self.endpoint = ""
        self._standing = Standing(spec.replica_id, self.incarnation)
        self._service = ServiceThread(self._standing, spec.controller_address, self._set_draining)
        self._followers: Followers | None = None
        self._launcher = launcher or SubprocessLauncher()
        self._crew = Crew()
        self._engine: Engine | None = None
        self._hub: Hub | None = None
        self._failure: tuple[str, bool] | None = None
        self._ready = False
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._lead, name="headway-engine", daemon=True)

    @property
    def pids(self) -> list[int]:
        """The leader's process id, then those of the ranks in order."""
        return list(self._standing.pids)

    def start(self) -> None:
        """Blocks until the group serves. Raises ConfigError, GroupFailed or OSError (the port); then all ranks are gone
        and the process should end."""
        self.spec.check()
        dump_stacks_on_signal()
        port = self._service.start(self.spec.host, self.spec.port)
        self.endpoint = f"{reachable_host(self.spec.host)}:{port}"
        self._thread.start()
        self._settled.wait()
        if self._failure is None:
            return
        why, config = self._failure
        # What only a person can mend is not tried again, and the report says so.
        self._stand(admin_pb2.REPLICA_STATE_STOPPED if config else admin_pb2.REPLICA_STATE_UNHEALTHY, why)
        if self._followers is not None:
            self._followers.kill()
        self._service.flush(1.0)
        self._service.stop(0.0)
        raise ConfigError(why) if config else GroupFailed(why)

    def check_health(self) -> None:
        """Raises GroupFailed unless a step or a ping went through every rank lately."""
        if not self._ready or self._engine is None or self._followers is None:
            raise GroupFailed("the group is not ready")
        if not self._thread.is_alive():
            raise GroupFailed("the engine's loop has ended")
        if self._engine.silence() > self.spec.engine.step_timeout_s:
            raise GroupFailed(f"the engine has been silent for {self._engine.silence():.1f} s")
        for member in self._followers.members:
            if not member.handle.alive():
                raise GroupFailed(f"rank {member.rank} is gone")

    def drain(self) -> None:
        """Takes no new requests; those that run go on."""
        self._set_draining(True)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drains for at most `timeout_s`, aborts what is left, and ends every rank. For a group that is ready.

        Raises GroupFailed when the ranks had to be killed; the process should then end by os._exit.
        """
        if not self._ready:
            return
        assert self._engine is not None and self._hub is not None and self._followers is not None
        self.drain()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not self._hub.drained:
            time.sleep(0.01)
        self._ready = False
        self._engine.inbox.put(Stop())
        self._thread.join(self.spec.engine.step_timeout_s + LEAVE_S)
        self._service.stop(1.0)
        if self._failure is not None or self._thread.is_alive():
            self._followers.kill()
            why = self._failure[0] if self._failure is not None else "the engine's loop does not end"
            raise GroupFailed(f"the group did not stop cleanly: {why}")

    def wait(self, timeout_s: float | None = None) -> None:
        """Returns when the engine's loop has ended, which only `stop` makes it do."""
        self._thread.join(timeout_s)

    def _lead(self) -> None:
        """The engine's thread, from loading to the end."""
        try:
            info, followers = self._load()
            plane = StepPlane(followers, self.spec.engine.step_timeout_s)
            engine = self._engine = self._make_engine(info, plane, followers)
            engine.ping()
            if self.spec.device != "cpu":
                engine.warm_up()
            spare_collector()
            self._serve(info, engine, followers)
            engine.run()
            followers.expect_end()
            plane.shut_down()
            followers.leave(LEAVE_S)
        except GroupFailed:
            return  # the watch over the followers saw it first, and has said why
        except BaseException as error:
            if not isinstance(error, ConfigError):
                log.exception("the engine failed")
            text = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            self._fail(text, isinstance(error, ConfigError))

    def _load(self) -> tuple[ModelInfo, Followers]:
        spec = self.spec = settle_dtype(self.spec)
        followers = self._followers = Followers(
            spec, self._launcher, on_progress=self._progressed, on_failure=self._fail
        )
        address = self._launcher.address or "127.0.0.1"
        rendezvous = f"tcp://{in_url(address)}:{free_port(address)}"
        # From this thread, because the kernel ties a rank's life to the thread that started it.
        followers.launch(rendezvous)
        self._standing.pids = [os.getpid(), *(member.handle.pid for member in followers.members)]
        self._standing.nodes = [platform.node(), *(member.handle.node for member in followers.members)]
        self._stand(admin_pb2.REPLICA_STATE_LOADING, "loading weights")
        info, self._pages = followers.wait_loaded()
        msgspec.structs.replace(spec.engine, total_pages=self._pages.device).check(spec.device)
        followers.allocate(self._pages)
        followers.wait_allocated()
        return info, followers

    def _make_engine(self, info: ModelInfo, plane: StepPlane, followers: Followers) -> Engine:
        engine, pages = self.spec.engine, self._pages
        limits = self._limits = Limits(
            page_size=engine.page_size,
            total_pages=pages.device,
            max_context_tokens=min(info.max_context_tokens, pages.device * engine.page_size),
            max_sequences=engine.max_sequences,
            token_budget=engine.token_budget,
            max_waiting=engine.max_waiting,
            vocab_size=info.vocab_size,
            max_adapters=engine.max_adapters,
            watermark_pages=engine.watermark_pages,
            admission_forecast=engine.admission_forecast,
            stages=self.spec.pp,
        )
        pool = PagePool(limits.total_pages, limits.page_size, _make_tiers(pages, followers))
        scheduler = Scheduler(limits, pool, self._crew)
        return Engine(scheduler, plane, self._service.publish, ping_interval(self.spec.engine.step_timeout_s))

    def _serve(self, info: ModelInfo, engine: Engine, followers: Followers) -> None:
        """From here on requests are taken, and failures end the process."""
        hub = self._hub = Hub(self.incarnation, engine.inbox, engine.silence, engine.figures())
        description = self._description(info)
        loader = AdapterLoader(followers)
        adapters = AdapterRegistry(self.spec.model_name, loader, engine.inbox, self._adapters_changed)
        path = Path(self.spec.model_path)
        grammars = GrammarCompiler(path, info.vocab_size, info.eos_token_ids, self._crew)
        self._service.ready(ServedEngine(hub, self._limits, description, path, adapters, grammars))
        self._standing.endpoint, self._standing.revision = self.endpoint, info.revision
        followers.serve()
        engine.ping()
        with self._lock:
            if self._failure is not None:
                raise GroupFailed(self._failure[0])
            self._ready = True
        self._stand(admin_pb2.REPLICA_STATE_READY, "")
        self._settled.set()

    def _description(self, info: ModelInfo) -> engine_pb2.DescribeResponse:
        spec, limits = self.spec, self._limits
        return engine_pb2.DescribeResponse(
            replica_id=spec.replica_id,
            model=spec.model_name,
            revision=info.revision,
            incarnation=self.incarnation,
            page_size=limits.page_size,
            max_context_tokens=limits.max_context_tokens,
            vocab_size=info.vocab_size,
            tensor_parallel=spec.tp,
            pipeline_parallel=spec.pp,
            eos_token_ids=info.eos_token_ids,
            default_sampling=sampling_to_proto(info.default_sampling),
            device=f"{info.device}, {info.dtype}{', batch-invariant' if info.batch_invariant else ''}",
            max_sequences=limits.max_sequences,
            max_waiting=limits.max_waiting,
            embedding_size=info.hidden_size,
        )

    def _adapters_changed(self, adapters: list[engine_pb2.Adapter]) -> None:
        assert self._hub is not None
        self._hub.set_adapters(adapters)
        self._standing.adapters = adapters
        self._service.changed()

    def _set_draining(self, draining: bool) -> None:
        if self._engine is None or not self._ready:
            return
        self._engine.inbox.put(Accept(not draining))
        self._service.set_serving(not draining)
        state = admin_pb2.REPLICA_STATE_DRAINING if draining else admin_pb2.REPLICA_STATE_READY
        self._stand(state, "draining" if draining else "")

    def _progressed(self) -> None:
        assert self._followers is not None
        self._standing.loaded = self._followers.loaded()
        self._service.changed()

    def _stand(self, state: admin_pb2.ReplicaState, reason: str) -> None:
        self._standing.state, self._standing.reason = state, reason
        self._service.changed()

    def _fail(self, why: str, config: bool) -> None:
        """Any thread: the group cannot go on. While it loads, `start` says so; later the process ends here."""
        with self._lock:
            if self._failure is None or (config and not self._failure[1]):
                self._failure = (why, config)
            ready = self._ready
        if ready:
            self._die(why)
        self._settled.set()

    def _die(self, why: str) -> None:
        """Stacks to stderr, every rank killed, this process gone: a half-dead group would only hold requests."""
        # Whatever of it hangs, a process that cannot be killed or a launcher that does not answer.
        last = threading.Timer(DIE_S, os._exit, [EXIT_ENGINE_DEAD])
        last.daemon = True
        try:
            last.start()
            log.critical("the group dies: %s", why)
            assert self._followers is not None
            self._followers.dump_stacks()
            dump_stacks()
            time.sleep(STACKS_S)
            self._followers.kill()
        finally:
            os._exit(EXIT_ENGINE_DEAD)


def _make_tiers(pages: PageCounts, followers: Followers) -> Tiers | None:
    if not pages.host:
        return None
    return Tiers(pages.host, pages.disk, lambda: Progress.of_all(followers.notes()))
