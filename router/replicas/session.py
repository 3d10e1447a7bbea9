"""The one open session with a replica's leader: commands up, one report a step down.

The loop that reads reports is the router's hottest: one pass hands every request its new tokens, without a task or a
queue for each of them. When the stream breaks, the leader aborts what this router had running there, so every request
on it is told that it is lost; whoever sent it decides where it goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import grpc

from ...core.blocks import split_keys
from ...core.servers import CHANNEL_OPTIONS
from ...proto.headway.v1 import engine_pb2
from ...proto.headway.v1.engine_pb2_grpc import EngineServiceStub
from ..index import PrefixIndex
from ..policy import Ledger, figures_from_load
from .assets import TextAssets
from .backoff import Backoff
from .replica import Replica, describe
from .sequence import SequenceTracker, Verdict

if TYPE_CHECKING:
    from ...proto.headway.v1.engine_pb2_grpc import EngineServiceAsyncStub

    _Call = grpc.aio.StreamStreamCall[engine_pb2.SessionRequest, engine_pb2.SessionResponse]

log = logging.getLogger(__name__)

DESCRIBE_TIMEOUT_S = 10.0
# From Hello to a whole first report.
SYNC_TIMEOUT_S = 30.0


class OutputSink(Protocol):
    """A request on a session. At most one of a last output, a refusal and a loss ends it, and nothing comes after."""

    def output(self, output: engine_pb2.StepOutput) -> None:
        """New tokens."""
        ...

    def refused(self, refusal: engine_pb2.Refusal) -> None:
        """The engine does not take it."""
        ...

    def lost(self, why: str) -> None:
        """The session ended; what the request still had to give will not come from there."""
        ...


class SessionBroken(Exception):
    """The stream is of no more use; the message says why."""


class Session:
    """Keeps a session with one replica until closed. Calls `on_change` when the replica gets usable or ceases to be."""

    def __init__(
        self,
        replica: Replica,
        *,
        router_id: str,
        index: PrefixIndex,
        ledger: Ledger,
        assets: TextAssets,
        on_change: Callable[[], None],
    ) -> None:
        self.replica = replica
        self._router_id = router_id
        self._index = index
        self._ledger = ledger
        self._assets = assets
        self._on_change = on_change
        self._tracker = SequenceTracker()
        self._backoff = Backoff()
        self._sinks: dict[int, OutputSink] = {}
        self._last_why = ""
        self._closed = False
        self._commands: asyncio.Queue[engine_pb2.SessionRequest] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name=f"session {replica.replica_id}")

    @property
    def live_requests(self) -> int:
        return len(self._sinks)

    @property
    def incarnation(self) -> str:
        """Of the group, as its last report said."""
        return self._tracker.incarnation

    def submit(self, message: engine_pb2.Submit, sink: OutputSink) -> None:
        """Sends a request; from now on the sink hears of it. Only while the replica is synced."""
        self._sinks[message.id] = sink
        self._commands.put_nowait(engine_pb2.SessionRequest(submit=message))

    def withdraw(self, submit_id: int) -> None:
        """Stops a request and tells its sink no more; without effect when it has ended."""
        if self._sinks.pop(submit_id, None) is not None:
            abort = engine_pb2.AbortSequence(id=submit_id)
            self._commands.put_nowait(engine_pb2.SessionRequest(abort=abort))

    def poke(self) -> None:
        """Reconnects now, when it is waiting to."""
        self._backoff.poke()

    async def close(self) -> None:
        """Ends the session; requests on it are lost."""
        self._closed = True
        while not self._task.done():  # a library on the way may swallow a cancellation; none swallows two
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)
        self._drop("the session was closed")

    async def _run(self) -> None:
        # A subchannel of its own: another session's broken connection must not delay this one's.
        options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(self.replica.endpoint, options=options) as channel:
            stub = EngineServiceStub(channel)
            while not self._closed:
                why = "the stream ended"
                try:
                    await self._connect(stub)
                except SessionBroken as error:
                    why = str(error)
                except grpc.aio.AioRpcError as error:
                    why = f"{error.code().name}: {error.details()}"
                except Exception:
                    why = "an error in the session"
                    log.exception("session with %s", self.replica.replica_id)
                self._drop(why)
                await self._backoff.wait()

    async def _connect(self, stub: EngineServiceAsyncStub) -> None:
        """One stream from Hello to its end. Raises SessionBroken or an RpcError when it does not end well."""
        await self._learn_model(stub)
        self._commands = asyncio.Queue()
        call = stub.Session(None)
        writer = asyncio.create_task(self._write(call, self._commands))
        hello = self._tracker.hello(self._router_id)
        self._commands.put_nowait(engine_pb2.SessionRequest(hello=hello))
        try:
            reports = aiter(call)
            await self._synchronize(reports)
            async for report in reports:
                self._take(report)
        finally:
            writer.cancel()
            call.cancel()

    async def _synchronize(self, reports: AsyncIterator[engine_pb2.SessionResponse]) -> None:
        """Reads until what is known of the replica is whole."""
        try:
            async with asyncio.timeout(SYNC_TIMEOUT_S):
                while not self.replica.synced:
                    self._take(await anext(reports))
        except StopAsyncIteration:
            raise SessionBroken("the stream ended before the first whole report") from None
        except TimeoutError:
            raise SessionBroken(f"no whole report within {SYNC_TIMEOUT_S:g} s") from None

    async def _learn_model(self, stub: EngineServiceAsyncStub) -> None:
        replica = self.replica
        answer = await stub.Describe(engine_pb2.DescribeRequest(), timeout=DESCRIBE_TIMEOUT_S)
        if answer.replica_id != replica.replica_id:
            if not replica.by_address:
                # A port that was given on: the replica we want listens elsewhere by now.
                raise SessionBroken(f"{replica.endpoint} is replica {answer.replica_id!r}, not {replica.replica_id!r}")
            self._index.forget(replica.replica_id)
            replica.replica_id = answer.replica_id
        replica.description = describe(answer, await self._assets.get(answer.revision, stub))

    @staticmethod
    async def _write(call: _Call, commands: asyncio.Queue[engine_pb2.SessionRequest]) -> None:
        # A failed write ends the call, which the reader sees and tells.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await commands.get())

    def _take(self, report: engine_pb2.SessionResponse) -> None:
        """Applies one report: cache events, load, then the tokens."""
        self._follow(report)
        for event in report.kv_events:
            self._take_event(event)
        if report.HasField("load"):
            self._take_load(report.load)
            self._ledger.confirm(self.replica.replica_id, report.last_submit_id)
        self._hand_out(report)
        if not self.replica.synced and self._tracker.whole and self.replica.figures is not None:
            self.replica.synced = True
            self._backoff.reset()
            log.info("replica %s at %s is in session", self.replica.replica_id, self.replica.endpoint)
            self._on_change()

    def _follow(self, report: engine_pb2.SessionResponse) -> None:
        """Forgets what the report makes void. Raises SessionBroken when it does not follow."""
        known = self._tracker.incarnation
        verdict = self._tracker.take(report)
        if verdict is Verdict.APPLY:
            return
        self._index.cleared(self.replica.replica_id)
        if verdict is Verdict.GAP:
            raise SessionBroken(f"report {report.first_sequence} does not follow; asking for a snapshot")
        if known and known != report.incarnation:
            self._lose("the group started again")

    def _take_load(self, load: engine_pb2.Load) -> None:
        replica = self.replica
        assert replica.description is not None
        before, replica.figures = replica.figures, figures_from_load(load, replica.description.answer)
        replica.reported_at = time.monotonic()
        if replica.synced and before is not None and before.accepting != load.accepting:
            self._on_change()

    def _take_event(self, event: engine_pb2.KvEvent) -> None:
        kind = event.WhichOneof("change")
        if kind == "stored":
            self._index.stored(self.replica.replica_id, split_keys(event.stored.keys))
        elif kind == "removed":
            self._index.removed(self.replica.replica_id, split_keys(event.removed.keys))
        elif kind == "cleared":
            self._index.cleared(self.replica.replica_id)

    def _hand_out(self, report: engine_pb2.SessionResponse) -> None:
        sinks = self._sinks
        for output in report.outputs:
            sink = sinks.get(output.id)
            if sink is not None:
                if output.finish_reason:
                    del sinks[output.id]
                sink.output(output)
        for refusal in report.refusals:
            sink = sinks.pop(refusal.id, None)
            if sink is not None:
                sink.refused(refusal)

    def _drop(self, why: str) -> None:
        """The stream is gone: nobody is sent there, and everybody who was there hears of it."""
        replica = self.replica
        was_synced, replica.synced = replica.synced, False
        replica.figures = None
        if was_synced or why != self._last_why:
            log.info("session with replica %s at %s: %s", replica.replica_id, replica.endpoint, why)
        self._last_why = why
        self._lose(why)
        if was_synced:
            self._on_change()

    def _lose(self, why: str) -> None:
        sinks, self._sinks = self._sinks, {}
        self._ledger.forget(self.replica.replica_id)
        if sinks:
            log.warning("replica %s: %s; %d requests lost there", self.replica.replica_id, why, len(sinks))
        for sink in sinks.values():
            sink.lost(why)
