"""An engine that does what a test says: a real gRPC server that speaks engine.proto, with arithmetic for a model.

The token at an output position depends on prompt, seed and position only, as with the real sampler, so a test knows the
tokens of an undisturbed run (`expected_tokens`) whatever happens on the way.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from headway.core.blocks import BlockKey, join_keys
from headway.core.servers import listen, new_server
from headway.proto.headway.v1 import engine_pb2, sampling_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceServicer, add_EngineServiceServicer_to_server

SERVICE = "headway.v1.EngineService"
PAGE_SIZE = 4
EMBEDDING_SIZE = 6


def token_at(prompt: Sequence[int], seed: int, position: int, sequence: int = 0) -> int:
    return zlib.crc32(repr((list(prompt), seed + (sequence << 64), position)).encode()) % 1000


def expected_tokens(prompt: Sequence[int], seed: int, count: int, sequence: int = 0) -> list[int]:
    return [token_at(prompt, seed, position, sequence) for position in range(count)]


def logprob_of(token_id: int) -> float:
    """As a float of 32 bits holds it: sixteenths."""
    return -(token_id % 64) / 16


def logprobs_of(token_ids: Sequence[int], alternatives: int) -> engine_pb2.Logprobs:
    """Each token's own, then tokens 0, 1, 2... as the likeliest."""
    message = engine_pb2.Logprobs(width=1 + alternatives)
    for token_id in token_ids:
        entries = [token_id, *range(alternatives)]
        message.token_ids.extend(entries)
        message.values.extend(map(logprob_of, entries))
    return message


def embedding_values(token_ids: Sequence[int], pooling: int) -> list[float]:
    """As floats of 32 bits hold them, too."""
    return [zlib.crc32(repr((list(token_ids), pooling, at)).encode()) % 64 / 16 for at in range(EMBEDDING_SIZE)]


def embedding_output(submit: engine_pb2.Submit, cached_tokens: int) -> engine_pb2.StepOutput:
    return engine_pb2.StepOutput(
        id=submit.id,
        finish_reason=sampling_pb2.FINISH_REASON_EMBEDDED,
        embedding=struct.pack(f"<{EMBEDDING_SIZE}f", *embedding_values(submit.token_ids, submit.pooling)),
        cached_tokens=cached_tokens,
    )


@dataclass
class Row:
    submit: engine_pb2.Submit
    position: int
    first: bool = True


@dataclass
class Stream:
    """One session: its requests, and the reports that are to go out."""

    reports: asyncio.Queue[engine_pb2.SessionResponse | None] = field(default_factory=asyncio.Queue)
    rows: dict[int, Row] = field(default_factory=dict)
    refusals: list[engine_pb2.Refusal] = field(default_factory=list)
    last_submit_id: int = 0
    told_adapters: bool = False


class ScriptedEngine(EngineServiceServicer):
    """Set attributes to steer it; `hellos`, `submits` and `aborts` say what routers sent."""

    def __init__(
        self, replica_id: str = "r0", *, model: str = "m", revision: str = "rev", step_s: float = 0.002
    ) -> None:
        self.replica_id, self.model, self.revision = replica_id, model, revision
        self.step_s = step_s
        self.hold = False
        self.accepting = True
        self.cached: list[BlockKey] = []
        self.adapters: dict[str, str] = {}
        self.cached_tokens = 0
        self.refuse: list[tuple[grpc.StatusCode, str, str] | tuple[grpc.StatusCode, str, str, str]] = []
        self.refuse_always = False
        self.snapshot_part = 1_000
        self.load: dict[str, Any] = {"prefill_rate": 10_000.0, "decode_step_ms": 5.0}
        self.files = {"tokenizer.json": b"{}"}
        self.vocab_size = 1000
        self.say_last_submit = True
        self.say_logprobs = True
        self.stray_tokens = 0  # in the next report with decoded tokens, without the ids of their requests
        self.hellos: list[engine_pb2.Hello] = []
        self.submits: list[engine_pb2.Submit] = []
        self.aborts: list[int] = []
        self.max_commands = 8
        self.batches: list[int] = []  # commands in each message after Hello
        self.asset_calls = 0
        self.port = 0
        self.incarnation = "boot-0"
        self._boots = 0
        self._sequence = 0
        self._history: list[tuple[int, engine_pb2.KvEvent]] = []
        self._events: list[engine_pb2.KvEvent] = []
        self._streams: list[Stream] = []
        self._server: grpc.aio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def dead(self) -> bool:
        return self._server is None

    @property
    def running(self) -> int:
        return sum(len(stream.rows) for stream in self._streams)

    async def start(self) -> ScriptedEngine:
        """Listens; again on the same port, under a new incarnation and with cold caches, after `die`."""
        self._boots += 1
        self.incarnation = f"boot-{self._boots}"
        self._sequence, self._history, self._events, self.cached = 0, [], [], []
        self._server, _ = new_server(SERVICE)
        add_EngineServiceServicer_to_server(self, self._server)
        self.port = listen(self._server, "127.0.0.1", self.port)
        await self._server.start()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def die(self) -> None:
        """Gone without a word: connections break."""
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
            self._ticker = None
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
        self._streams.clear()

    def break_streams(self) -> None:
        """All sessions end; the engine lives on with what it knows."""
        for stream in self._streams:
            stream.reports.put_nowait(None)
        self._streams.clear()

    def stop_rows(self) -> None:
        """As a leader at the end of its drain: what still runs is aborted, and then the streams end."""
        self._sequence += 1
        for stream in self._streams:
            report = self._report(stream, self._sequence)
            aborted = sampling_pb2.FINISH_REASON_ABORTED
            report.outputs.extend(engine_pb2.StepOutput(id=id, finish_reason=aborted) for id in stream.rows)
            stream.reports.put_nowait(report)
        self.break_streams()

    def refuse_rows(self, code: grpc.StatusCode, message: str, field: str) -> None:
        """What runs cannot go on."""
        for stream in self._streams:
            for id in stream.rows:
                refusal = engine_pb2.Refusal(id=id, code=code.value[0], reason="R", message=message, field=field)
                stream.refusals.append(refusal)
            stream.rows.clear()

    def hold_adapters(self, **revisions: str) -> None:
        """These adapters from the next report on, by name."""
        self.adapters = revisions
        for stream in self._streams:
            stream.told_adapters = False

    def skip_reports(self, count: int = 1) -> None:
        """Reports go lost: the next one does not follow."""
        self._sequence += count

    def store(self, keys: Sequence[BlockKey]) -> None:
        self.cached += [key for key in keys if key not in self.cached]
        self._events.append(engine_pb2.KvEvent(stored=engine_pb2.BlocksStored(keys=join_keys(keys))))

    def evict(self, keys: Sequence[BlockKey]) -> None:
        self.cached = [key for key in self.cached if key not in keys]
        self._events.append(engine_pb2.KvEvent(removed=engine_pb2.BlocksRemoved(keys=join_keys(keys))))

    def clear(self) -> None:
        self.cached = []
        self._events.append(engine_pb2.KvEvent(cleared=engine_pb2.BlocksCleared()))

    def step(self) -> None:
        """One engine step: one token for each running request, one report for each session."""
        self._sequence += 1
        events, self._events = self._events, []
        self._history += [(self._sequence, event) for event in events]
        for stream in self._streams:
            report = self._report(stream, self._sequence)
            report.kv_events.extend(events)
            if not self.hold:
                self._add_tokens(stream, report)
            stream.reports.put_nowait(report)

    async def Describe(self, request: Any, context: Any) -> engine_pb2.DescribeResponse:
        return engine_pb2.DescribeResponse(
            replica_id=self.replica_id,
            model=self.model,
            revision=self.revision,
            incarnation=self.incarnation,
            page_size=PAGE_SIZE,
            max_context_tokens=1024,
            vocab_size=self.vocab_size,
            eos_token_ids=[2],
            default_sampling=sampling_pb2.Sampling(temperature=0.5),
            max_sequences=8,
            max_waiting=16,
            embedding_size=EMBEDDING_SIZE,
            max_commands=self.max_commands,
        )

    async def GetTextAssets(self, request: Any, context: Any) -> engine_pb2.GetTextAssetsResponse:
        self.asset_calls += 1
        return engine_pb2.GetTextAssetsResponse(revision=self.revision, files=self.files)

    async def Session(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        hello = (await anext(aiter(request_iterator))).hello
        self.hellos.append(hello)
        stream = Stream()
        for report in self._opening(hello, stream):
            stream.reports.put_nowait(report)
        self._streams.append(stream)
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            while (message := await stream.reports.get()) is not None:
                yield message
        finally:
            reader.cancel()
            if stream in self._streams:
                self._streams.remove(stream)

    def _opening(self, hello: engine_pb2.Hello, stream: Stream) -> list[engine_pb2.SessionResponse]:
        if hello.incarnation == self.incarnation and 0 < hello.after_sequence <= self._sequence:
            self.step()
            report = self._report(stream, hello.after_sequence + 1)
            report.kv_events.extend(event for number, event in self._history if number > hello.after_sequence)
            return [report]
        parts = [self.cached[at : at + self.snapshot_part] for at in range(0, len(self.cached), self.snapshot_part)]
        self._events.clear()
        reports = []
        for number, part in enumerate(parts or [[]], start=1):
            report = self._report(stream, self._sequence)
            report.snapshot, report.snapshot_continues = True, number < len(parts)
            report.kv_events.append(engine_pb2.KvEvent(stored=engine_pb2.BlocksStored(keys=join_keys(part))))
            reports.append(report)
        return reports

    def _report(self, stream: Stream, first: int) -> engine_pb2.SessionResponse:
        load = engine_pb2.Load(running=self.running, accepting=self.accepting, total_pages=1000)
        for name, value in self.load.items():
            setattr(load, name, value)
        refusals, stream.refusals = stream.refusals, []
        held = [engine_pb2.Adapter(name=name, revision=revision) for name, revision in self.adapters.items()]
        told, stream.told_adapters = stream.told_adapters, True
        return engine_pb2.SessionResponse(
            adapters=None if told else engine_pb2.AdapterSet(adapters=held),
            incarnation=self.incarnation,
            first_sequence=first,
            sequence=self._sequence,
            refusals=refusals,
            load=load,
            last_submit_id=stream.last_submit_id if self.say_last_submit else 0,
        )

    def _add_tokens(self, stream: Stream, report: engine_pb2.SessionResponse) -> None:
        """As a leader does: what is a token and nothing else goes into columns."""
        plain = engine_pb2.StepOutput()
        for output in self._outputs(stream):
            plain.id, plain.token_ids[:] = output.id, output.token_ids
            if output == plain:
                report.decoded_ids.append(output.id)
                report.decoded_tokens.extend(output.token_ids)
            else:
                report.outputs.append(output)
        if report.decoded_ids:
            report.decoded_tokens.extend([0] * self.stray_tokens)
            self.stray_tokens = 0

    def _outputs(self, stream: Stream) -> list[engine_pb2.StepOutput]:
        outputs = []
        for row in list(stream.rows.values()):
            submit = row.submit
            if submit.pooling:
                outputs.append(embedding_output(submit, self.cached_tokens))
                del stream.rows[submit.id]
                continue
            prompt = submit.token_ids[: len(submit.token_ids) - submit.delivered]
            output = engine_pb2.StepOutput(id=submit.id)
            token_id = token_at(prompt, submit.sampling.seed, row.position, submit.sequence)
            output.token_ids.append(token_id)
            if submit.HasField("logprobs") and self.say_logprobs:
                output.logprobs.CopyFrom(logprobs_of([token_id], submit.logprobs))
            if row.first:
                if submit.HasField("prompt_logprobs"):
                    output.prompt_logprobs.CopyFrom(logprobs_of(prompt[1:], submit.prompt_logprobs))
                output.cached_tokens = self.cached_tokens
                row.first = False
            row.position += 1
            if row.position >= submit.max_new_tokens:
                output.finish_reason = sampling_pb2.FINISH_REASON_LENGTH
                del stream.rows[submit.id]
            outputs.append(output)
        return outputs

    async def _read(self, requests: AsyncIterator[engine_pb2.SessionRequest], stream: Stream) -> None:
        async for request in requests:
            commands = request.batch.commands if request.HasField("batch") else [request]
            self.batches.append(len(commands))
            for command in commands:
                if command.HasField("submit"):
                    self._take_submit(command.submit, stream)
                elif command.HasField("abort"):
                    self.aborts.append(command.abort.id)
                    stream.rows.pop(command.abort.id, None)

    def _take_submit(self, submit: engine_pb2.Submit, stream: Stream) -> None:
        self.submits.append(submit)
        stream.last_submit_id = submit.id
        if self.refuse:
            code, reason, message, *field = self.refuse[0] if self.refuse_always else self.refuse.pop(0)
            refusal = engine_pb2.Refusal(id=submit.id, code=code.value[0], reason=reason, message=message)
            refusal.field = "".join(field)
            stream.refusals.append(refusal)
        else:
            stream.rows[submit.id] = Row(submit, submit.delivered)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.step_s)
            self.step()
