"""The one open session with a replica's leader: commands up, one report a step down.

When the stream breaks, the leader aborts what this router had running there, so every request on it is told that it is
lost; whoever sent it decides where it goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from ...core.servers import CHANNEL_OPTIONS
from ...proto.headway.v1 import engine_pb2
from ...proto.headway.v1.engine_pb2_grpc import EngineServiceStub
from ..index import PrefixIndex
from ..policy import Ledger
from .assets import TextAssets
from .backoff import Backoff
from .intake import Intake, OutputSink, SessionBroken
from .replica import Replica, describe

if TYPE_CHECKING:
    from ...proto.headway.v1.engine_pb2_grpc import EngineServiceAsyncStub

    _Call = grpc.aio.StreamStreamCall[engine_pb2.SessionRequest, engine_pb2.SessionResponse]

log = logging.getLogger(__name__)

DESCRIBE_TIMEOUT_S = 10.0
# From Hello to a whole first report.
SYNC_TIMEOUT_S = 30.0
# A leader reports every second also when idle. Pings do not show this: a hung process may still answer them.
SILENCE_S = 15.0
# A message that has so many gets no more commands: transports take 64 MiB, and one prompt may be long.
BATCH_BYTES = 1 << 20


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
        self._assets = assets
        self._on_change = on_change
        self._intake = Intake(replica, index, ledger, on_change)
        self._backoff = Backoff()
        self._last_why = ""
        self._closed = False
        self._commands: asyncio.Queue[engine_pb2.SessionRequest] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name=f"session {replica.replica_id}")

    @property
    def live_requests(self) -> int:
        return len(self._intake.sinks)

    @property
    def incarnation(self) -> str:
        """Of the group, as its last report said."""
        return self._intake.tracker.incarnation

    def submit(self, message: engine_pb2.Submit, sink: OutputSink) -> None:
        """Sends a request; from now on the sink hears of it. Only while the replica is synced."""
        self._intake.sinks[message.id] = sink
        self._commands.put_nowait(engine_pb2.SessionRequest(submit=message))

    def withdraw(self, submit_id: int) -> None:
        """Stops a request and tells its sink no more; without effect when it has ended."""
        if self._intake.sinks.pop(submit_id, None) is not None:
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
        assert self.replica.description is not None
        most = self.replica.description.answer.max_commands
        writer = asyncio.create_task(self._write(call, self._commands, most))
        hello = self._intake.tracker.hello(self._router_id)
        hello.takes_decoded = True
        self._commands.put_nowait(engine_pb2.SessionRequest(hello=hello))
        try:
            await self._read(call)
        except TimeoutError:
            limit_s = SILENCE_S if self.replica.synced else SYNC_TIMEOUT_S
            raise SessionBroken(f"no whole report within {limit_s:g} s") from None
        finally:
            writer.cancel()
            call.cancel()

    async def _read(self, call: _Call) -> None:
        """Takes reports to the end of the stream. Raises TimeoutError when they stay away."""
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(SYNC_TIMEOUT_S) as limit:
            async for report in call:
                self._take(report)
                if self.replica.synced:
                    limit.reschedule(clock() + SILENCE_S)

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
    async def _write(call: _Call, commands: asyncio.Queue[engine_pb2.SessionRequest], most: int) -> None:
        # A failed write ends the call, which the reader sees and tells.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(_joined(await commands.get(), commands, most))

    def _take(self, report: engine_pb2.SessionResponse) -> None:
        self._intake.take(report)
        if not self.replica.synced and self._intake.whole:
            self.replica.synced = True
            self._backoff.reset()
            log.info("replica %s at %s is in session", self.replica.replica_id, self.replica.endpoint)
            self._on_change()

    def _drop(self, why: str) -> None:
        """The stream is gone: nobody is sent there, and everybody who was there hears of it."""
        replica = self.replica
        was_synced, replica.synced = replica.synced, False
        lost = self._intake.lose(why)
        if was_synced or why != self._last_why:
            level = logging.WARNING if lost else logging.INFO
            log.log(level, "replica %s at %s: %s; %d requests lost", replica.replica_id, replica.endpoint, why, lost)
        self._last_why = why
        if was_synced:
            self._on_change()


def _joined(
    first: engine_pb2.SessionRequest, others: asyncio.Queue[engine_pb2.SessionRequest], most: int
) -> engine_pb2.SessionRequest:
    """`first` and what waits behind it, as one message of at most so many commands: a burst of requests costs a few
    writes and reads, and reaches the scheduler together."""
    batch, size = [first], first.ByteSize()
    while len(batch) < most and size < BATCH_BYTES and not others.empty():
        batch.append(others.get_nowait())
        size += batch[-1].ByteSize()
    return first if len(batch) == 1 else engine_pb2.SessionRequest(batch=engine_pb2.CommandBatch(commands=batch))
