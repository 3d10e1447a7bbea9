"""EngineService on grpc.aio. While the model loads, every call is refused with UNAVAILABLE."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc

from ...core.constraints import Grammar
from ...core.errors import HeadwayError, Internal, InvalidRequest, NotFound, Unavailable
from ...proto.headway.v1 import engine_pb2
from ...proto.headway.v1.engine_pb2_grpc import EngineServiceServicer
from ..engine import Abort, Compiled, Refuse, Submit
from ..scheduler import Limits, Request
from ..structured.compiler import GrammarCompiler
from .adapters import AdapterRegistry
from .constraints import grammar_from
from .hub import Hub, Session
from .submit import request_from

log = logging.getLogger(__name__)

MOST_COMMANDS = 4096  # that the engine has not come to yet
MOST_UNREAD = 16384  # requests with news that a router has not fetched
BEHIND_S = 0.002

MAX_COMMANDS = 256
TEXT_ASSETS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class ServedEngine:
    """What the service needs of an engine that is ready."""

    def __init__(
        self,
        hub: Hub,
        limits: Limits,
        description: engine_pb2.DescribeResponse,
        model_path: Path,
        adapters: AdapterRegistry,
        grammars: GrammarCompiler,
    ) -> None:
        self.hub = hub
        self.adapters = adapters
        self.grammars = grammars
        self.limits = limits
        self.description = description
        self.description.max_commands = MAX_COMMANDS
        self.model_path = model_path


class EngineServicer(EngineServiceServicer):
    """`engine` is None until the model is loaded. `on_drain` hears whether the engine is to drain or to go on."""

    def __init__(self, on_drain: Callable[[bool], None]) -> None:
        self.engine: ServedEngine | None = None
        self._on_drain = on_drain

    async def Describe(self, request: engine_pb2.DescribeRequest, context: Any) -> engine_pb2.DescribeResponse:
        return self._ready().description

    async def GetTextAssets(
        self, request: engine_pb2.GetTextAssetsRequest, context: Any
    ) -> engine_pb2.GetTextAssetsResponse:
        engine = self._ready()
        files = await asyncio.to_thread(_read_assets, engine.model_path)
        return engine_pb2.GetTextAssetsResponse(revision=engine.description.revision, files=files)

    async def Drain(self, request: engine_pb2.DrainRequest, context: Any) -> engine_pb2.DrainResponse:
        engine = self._ready()
        self._on_drain(not request.cancel)
        return engine_pb2.DrainResponse(unfinished=engine.hub.unfinished)

    async def LoadAdapter(
        self, request: engine_pb2.EngineServiceLoadAdapterRequest, context: Any
    ) -> engine_pb2.EngineServiceLoadAdapterResponse:
        adapter = await self._ready().adapters.load(request.name, request.path)
        return engine_pb2.EngineServiceLoadAdapterResponse(adapter=adapter)

    async def UnloadAdapter(
        self, request: engine_pb2.EngineServiceUnloadAdapterRequest, context: Any
    ) -> engine_pb2.EngineServiceUnloadAdapterResponse:
        await self._ready().adapters.unload(request.name)
        return engine_pb2.EngineServiceUnloadAdapterResponse()

    async def ListAdapters(
        self, request: engine_pb2.ListAdaptersRequest, context: Any
    ) -> engine_pb2.ListAdaptersResponse:
        return engine_pb2.ListAdaptersResponse(adapters=self._ready().adapters.adapters())

    async def Session(
        self, request_iterator: AsyncIterator[engine_pb2.SessionRequest], context: Any
    ) -> AsyncIterator[engine_pb2.SessionResponse]:
        engine = self._ready()
        hello = await _hello(request_iterator)
        session, opening = engine.hub.join(hello)
        # The callback also runs when the call ends while this generator waits for the transport.
        context.add_done_callback(lambda _: engine.hub.leave(session))
        log.info("router %s opened session %d", hello.router_id, session.number)
        reader = asyncio.create_task(_read(engine, session, request_iterator))
        try:
            for message in opening:
                yield message
            while (report := await session.outbox.take()) is not None:
                report.incarnation = engine.hub.incarnation
                yield report
        finally:
            reader.cancel()
            engine.hub.leave(session)
            log.info("session %d of router %s ended", session.number, hello.router_id)

    def _ready(self) -> ServedEngine:
        if self.engine is None:
            raise Unavailable("the replica is loading its model", retry_after_s=1.0)
        return self.engine


async def _hello(requests: AsyncIterator[engine_pb2.SessionRequest]) -> engine_pb2.Hello:
    async for request in requests:
        if request.WhichOneof("command") == "hello" and request.hello.router_id:
            return request.hello
        break
    raise InvalidRequest("hello: the first message of a session must be a Hello with a router_id", field="hello")


async def _read(engine: ServedEngine, session: Session, requests: AsyncIterator[engine_pb2.SessionRequest]) -> None:
    """Hands commands to the engine until the router says no more; then the session ends."""
    error: HeadwayError | None = None
    try:
        async for request in requests:
            # A stream that cannot be written to may live on for a while after its session: its requests have no reader.
            if session.ended:
                break
            _take(engine, session, request)
            while _behind(engine, session) and not session.ended:  # noqa: ASYNC110  (other threads set no event)
                await asyncio.sleep(BEHIND_S)
    except HeadwayError as refusal:
        error = refusal
    except grpc.RpcError as broken:
        log.info("session %d broke: %s", session.number, broken)
    session.outbox.close(error)
    engine.hub.leave(session)


def _behind(engine: ServedEngine, session: Session) -> bool:
    """Whether more is under way than anybody waits for: then the stream is not read, and its sender has to wait."""
    return engine.hub.inbox.qsize() > MOST_COMMANDS or session.outbox.unread > MOST_UNREAD


def _take(engine: ServedEngine, session: Session, request: engine_pb2.SessionRequest) -> None:
    inbox = engine.hub.inbox
    match request.WhichOneof("command"):
        case "submit":
            try:
                _submit(engine, session, request.submit)
            except HeadwayError as error:
                inbox.put(Refuse(session.number, request.submit.id, error))
        case "abort":
            if (task := session.compiling.get(request.abort.id)) is not None:
                task.cancel()
            inbox.put(Abort(session.number, request.abort.id))
        case "batch":
            if len(request.batch.commands) > MAX_COMMANDS:
                text = f"batch.commands: at most {MAX_COMMANDS} at once, got {len(request.batch.commands)}"
                raise InvalidRequest(text, field="batch.commands")
            for command in request.batch.commands:
                if command.WhichOneof("command") not in ("submit", "abort"):
                    raise InvalidRequest("batch.commands: each one is a submit or an abort", field="batch.commands")
                _take(engine, session, command)
        case "hello":
            raise InvalidRequest("hello: only the first message of a session is a Hello", field="hello")
        case _:
            raise InvalidRequest("command: exactly one must be set", field="command")


def _submit(engine: ServedEngine, session: Session, message: engine_pb2.Submit) -> None:
    """Hands the request on at once, so that what follows finds it there, though its grammar is still to compile."""
    request = request_from(message, session.number, engine.limits, engine.adapters.number(message))
    grammar = grammar_from(message)
    engine.hub.submit(session, Submit(request, compiling=grammar is not None))
    if grammar is not None:
        task = asyncio.create_task(_compile(engine, grammar, request))
        session.compiling[request.id] = task
        task.add_done_callback(lambda _: session.compiling.pop(request.id, None))


async def _compile(engine: ServedEngine, grammar: Grammar, request: Request) -> None:
    """Gives the request its guide. When this is cancelled, the engine has been told why, or is about to be."""
    error: HeadwayError | None = None
    try:
        request.guide = await engine.grammars.guide(grammar, request)
    except HeadwayError as refusal:
        error = refusal
    except asyncio.CancelledError:
        raise
    except BaseException:  # a panic in Rust is no Exception, and the engine waits for an answer
        log.exception("the grammar of request %d failed to compile", request.id)
        error = Internal("grammar: it failed to compile")
    engine.hub.inbox.put(Compiled(request, error))


def _read_assets(path: Path) -> dict[str, bytes]:
    files = {name: (path / name).read_bytes() for name in TEXT_ASSETS if (path / name).is_file()}
    if "tokenizer.json" not in files:
        raise NotFound(f"the model directory has no tokenizer.json: {path.name}")
    return files
