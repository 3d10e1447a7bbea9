"""A router's end of EngineService.Session, as little of it as tests need."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import grpc

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.core.servers import CHANNEL_OPTIONS
from headway.core.wire import sampling_to_proto
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub

ROOT = root_key("tests")
GREEDY = SamplingParams(temperature=0.0)


Place = list[tuple[int, float]]


def places(logprobs: engine_pb2.Logprobs) -> list[Place]:
    """(token id, log probability) of each place's own token and its likeliest ones."""
    pairs = list(zip(logprobs.token_ids, logprobs.values, strict=True))
    return [pairs[at : at + logprobs.width] for at in range(0, len(pairs), logprobs.width or 1)]


class Stream:
    """What came for one request."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.last: engine_pb2.StepOutput | None = None
        self.refusal: engine_pb2.Refusal | None = None
        self.cached_tokens = 0
        self.logprobs: list[Place] = []
        self.prompt_logprobs: list[Place] | None = None
        self.started = asyncio.Event()
        self.done = asyncio.Event()


class EngineSession:
    """One session. `reading` off leaves reports in the transport, as a slow router does. Without `takes_decoded` it is
    a router that knows outputs only."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        router_id: str,
        incarnation: str = "",
        after_sequence: int = 0,
        *,
        takes_decoded: bool = True,
    ) -> None:
        self.call = EngineServiceStub(channel).Session(None)
        self.hello = engine_pb2.Hello(
            router_id=router_id,
            incarnation=incarnation,
            after_sequence=after_sequence,
            takes_decoded=takes_decoded,
        )
        self.reports: list[engine_pb2.SessionResponse] = []
        self.streams: dict[int, Stream] = {}
        self.arrived = asyncio.Condition()
        self.ids = 0
        self._pump: asyncio.Task[None] | None = None

    async def open(self, *, reading: bool = True) -> "EngineSession":
        await self.call.write(engine_pb2.SessionRequest(hello=self.hello))
        if reading:
            self.read()
        return self

    def read(self) -> None:
        self._pump = asyncio.create_task(self._read())

    async def submit(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int,
        sampling: SamplingParams = GREEDY,
        **fields: object,
    ) -> Stream:
        stream, command = self.command(token_ids, max_new_tokens, sampling, **fields)
        await self.call.write(command)
        return stream

    def command(
        self, token_ids: Sequence[int], max_new_tokens: int, sampling: SamplingParams = GREEDY, **fields: object
    ) -> tuple[Stream, engine_pb2.SessionRequest]:
        """A submit that is still to be sent."""
        self.ids += 1
        message = engine_pb2.Submit(
            id=fields.pop("id", self.ids),  # type: ignore[arg-type]
            token_ids=token_ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling_to_proto(sampling),
            cache_root=fields.pop("cache_root", ROOT),  # type: ignore[arg-type]
            **fields,  # type: ignore[arg-type]
        )
        stream = self.streams[message.id] = Stream()
        return stream, engine_pb2.SessionRequest(submit=message)

    async def abort(self, id: int) -> None:
        await self.call.write(engine_pb2.SessionRequest(abort=engine_pb2.AbortSequence(id=id)))

    async def generate(
        self, token_ids: Sequence[int], max_new_tokens: int, sampling: SamplingParams = GREEDY, **fields: object
    ) -> Stream:
        stream = await self.submit(token_ids, max_new_tokens, sampling, **fields)
        await asyncio.wait_for(stream.done.wait(), 60)
        return stream

    async def report(self, holds: object, seconds: float = 20) -> engine_pb2.SessionResponse:
        """The first report so far or to come for which `holds(report)`."""
        async with asyncio.timeout(seconds), self.arrived:
            while True:
                for report in self.reports:
                    if holds(report):  # type: ignore[operator]
                        return report
                await self.arrived.wait()

    async def idle(self) -> engine_pb2.Load:
        """The load of the next report in which nothing runs or waits."""
        seen = len(self.reports)
        report = await self.report(
            lambda report: report in self.reports[seen:] and not report.load.running + report.load.waiting
        )
        return report.load

    async def close(self) -> None:
        self.call.cancel()
        if self._pump is not None:
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await self._pump

    async def _read(self) -> None:
        async for report in self.call:
            for refusal in report.refusals:
                self.streams[refusal.id].refusal = refusal
                self.streams[refusal.id].done.set()
            for id, token in zip(report.decoded_ids, report.decoded_tokens, strict=True):
                stream = self.streams[id]
                assert stream.last is None or not stream.last.finish_reason, "a token after the end"
                stream.token_ids.append(token)
            for output in report.outputs:
                stream = self.streams[output.id]
                assert stream.last is None or not stream.last.finish_reason, "output after the end"
                stream.token_ids += output.token_ids
                stream.cached_tokens += output.cached_tokens
                stream.logprobs += places(output.logprobs)
                if output.HasField("prompt_logprobs"):
                    assert stream.prompt_logprobs is None, "they come once"
                    stream.prompt_logprobs = places(output.prompt_logprobs)
                stream.last = output
                stream.started.set()
                if output.finish_reason:
                    stream.done.set()
            async with self.arrived:
                self.reports.append(report)
                self.arrived.notify_all()


def channel_to(endpoint: str, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A channel of its own, sharing no connection with others to the same address."""
    own = ("grpc.use_local_subchannel_pool", 1)
    return grpc.aio.insecure_channel(endpoint, options=[*CHANNEL_OPTIONS, own, *options])
