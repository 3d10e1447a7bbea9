"""A real grpc.aio server of InferenceService whose behaviour a test scripts, in a thread of its own.

Its tokenizer is one token a UTF-8 byte; its model answers "w0 w1 w2 ..." one word a token.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf import duration_pb2

from headway.core.errors import HeadwayError, NotFound
from headway.core.servers import listen, new_server, set_serving
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import inference_pb2_grpc, sampling_pb2

SERVICE = "headway.v1.InferenceService"
MODEL = "scripted"
# request, its prompt ids -> the stream. Raising HeadwayError ends the call with its status.
Behaviour = Callable[[pb.GenerateRequest, list[int]], AsyncIterator[pb.GenerateResponse]]


def duration(seconds: float) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


async def answer(request: pb.GenerateRequest, prompt: list[int]) -> AsyncIterator[pb.GenerateResponse]:
    """The default: all the words, ended by length or by the first stop string that is one of the words.

    Further sequences say "v0 v1 ...", "u0 ..." in turn with the first, each one token shorter, and end by a stop id.
    """
    name = request.request_id or "made-by-server"
    cached = len(prompt) // 16 * 16
    yield pb.GenerateResponse(
        request_id=name,
        started=pb.Started(
            model=request.model or MODEL,
            model_revision="r1",
            prompt_tokens=len(prompt),
            cached_tokens=cached,
            seed=request.sampling.seed or 7,
            replica_id="replica-0",
            prompt_logprobs=[logprob(token_id, request.output, "prompt_logprobs") for token_id in prompt[1:]]
            if request.output.HasField("prompt_logprobs")
            else [],
        ),
    )
    wanted, stops = request.stopping.max_new_tokens or 8, list(request.stopping.stop_strings)
    made, running = 0, set(range(request.n or 1))
    for position in range(wanted + 1):
        for index in sorted(running):
            finished = pb.Finished(reason=sampling_pb2.FINISH_REASON_LENGTH, index=index)
            word = f"{'wvu'[index]}{position} "
            if position == wanted - index and index:
                finished = pb.Finished(reason=sampling_pb2.FINISH_REASON_STOP, stop_token_id=index, index=index)
            elif word.strip() in stops:
                finished = pb.Finished(reason=sampling_pb2.FINISH_REASON_STOP, stop_string=word.strip(), index=index)
                made += 1
            elif position < wanted:
                made += 1
                yield pb.GenerateResponse(request_id=name, delta=_delta(request.output, word, position, index))
                continue
            running.remove(index)
            yield pb.GenerateResponse(request_id=name, finished=finished)
    timing = pb.Timing(time_to_first_token=duration(0.005), total=duration(0.02), migrations=1)
    usage = pb.Usage(prompt_tokens=len(prompt), cached_tokens=cached, completion_tokens=made, timing=timing)
    yield pb.GenerateResponse(request_id=name, usage=usage)


def _delta(output: pb.Output, word: str, position: int, index: int) -> pb.Delta:
    return pb.Delta(
        text=word,
        token_ids=[position] if output.token_ids else [],
        offset=position,
        index=index,
        logprobs=[logprob(position, output, "logprobs")] if output.HasField("logprobs") else [],
    )


def logprob(token_id: int, output: pb.Output, field: str) -> pb.TokenLogprob:
    """The token with -1, and likeliest ones from half a character on with -0.5, -1.0, ..."""
    top = [
        pb.LogprobEntry(token_id=200 + rank, logprob=-0.5 * (rank + 1), text=bytes([0xC3 + rank]))
        for rank in range(getattr(output, field))
    ]
    return pb.TokenLogprob(token=pb.LogprobEntry(token_id=token_id, logprob=-1.0, text=b"\n"), top=top)


def refuse(error: HeadwayError) -> Behaviour:
    """Fails before the first message."""

    async def behave(request: pb.GenerateRequest, prompt: list[int]) -> AsyncIterator[pb.GenerateResponse]:
        raise error
        yield pb.GenerateResponse()

    return behave


def fail_after(messages: int, error: HeadwayError | None) -> Behaviour:
    """The default's first messages, then the error; None ends the stream in good order, but short."""

    async def behave(request: pb.GenerateRequest, prompt: list[int]) -> AsyncIterator[pb.GenerateResponse]:
        count = 0
        async for response in answer(request, prompt):
            yield response
            count += 1
            if count == messages:
                break
        if error is not None:
            raise error

    return behave


class ScriptedInference(inference_pb2_grpc.InferenceServiceServicer):
    """Records the requests it gets. `script` holds the behaviours of the next Generate and Chat calls, in order."""

    def __init__(self) -> None:
        self.script: list[Behaviour] = []
        self.unary_errors: list[HeadwayError] = []
        self.requests: list[pb.GenerateRequest] = []
        self.chats: list[pb.ChatRequest] = []
        self.embeds: list[pb.EmbedRequest] = []
        self.seconds_left: list[float | None] = []
        self.started, self.cancelled = threading.Event(), threading.Event()
        self.models = [self._model(MODEL)]

    @staticmethod
    def _model(name: str) -> pb.Model:
        return pb.Model(
            name=name,
            revision="r1",
            max_context_tokens=1024,
            max_stop_strings=4,
            default_sampling=sampling_pb2.Sampling(temperature=0.5),
            features=["generate", "chat"],
            ready_replicas=2,
            vocab_size=256,
        )

    async def hang(self, request: pb.GenerateRequest, prompt: list[int]) -> AsyncIterator[pb.GenerateResponse]:
        """Starts, says one word, and then nothing until the caller leaves."""
        async for response in fail_after(2, None)(request, prompt):
            yield response
        await asyncio.Event().wait()

    async def _run(self, request: pb.GenerateRequest, prompt: list[int], context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        self.started.set()
        self.seconds_left.append(context.time_remaining())
        if request.model and request.model not in {model.name for model in self.models}:
            raise NotFound(f"no model {request.model!r}", field="model")
        behaviour = self.script.pop(0) if self.script else answer
        try:
            async for response in behaviour(request, prompt):
                yield response
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        prompt = list(request.prompt.token_ids.ids) or list(request.prompt.text.encode())
        async for response in self._run(request, prompt, context):
            yield response

    async def Chat(self, request: pb.ChatRequest, context: Any) -> AsyncIterator[pb.ChatResponse]:
        self.chats.append(request)
        prompt = list("\n".join(f"{message.role}: {message.content}" for message in request.messages).encode())
        async for response in self._run(request.generate, prompt, context):
            yield pb.ChatResponse(generate=response)

    def _unary(self) -> None:
        if self.unary_errors:
            raise self.unary_errors.pop(0)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        """Two values an input: how many tokens it has, and its place."""
        self._unary()
        self.embeds.append(request)
        counts = [len(one.token_ids.ids) or len(one.text.encode()) for one in request.inputs]
        embeddings = [pb.Embedding(values=[count, index]) for index, count in enumerate(counts)]
        usage = pb.Usage(prompt_tokens=sum(counts), timing=pb.Timing(total=duration(0.02)))
        return pb.EmbedResponse(
            request_id=request.request_id or "made-by-server",
            model=MODEL,
            model_revision="r1",
            embeddings=embeddings,
            usage=usage,
        )

    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeResponse:
        self._unary()
        text = request.text or "".join(f"{message.role}{message.content}" for message in request.messages)
        return pb.TokenizeResponse(token_ids=list(text.encode()), max_context_tokens=1024)

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Any) -> pb.DetokenizeResponse:
        self._unary()
        return pb.DetokenizeResponse(text=bytes(request.token_ids).decode())

    async def Abort(self, request: pb.AbortRequest, context: Any) -> pb.AbortResponse:
        self._unary()
        return pb.AbortResponse(aborted_request_ids=[name for name in request.request_ids if name != "gone"])

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """One model a page."""
        self._unary()
        index = int(request.page_token or 0)
        following = str(index + 1) if index + 1 < len(self.models) else ""
        return pb.ListModelsResponse(models=self.models[index : index + 1], next_page_token=following)

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        self._unary()
        for model in self.models:
            if request.model in ("", model.name):
                return pb.GetModelResponse(model=model)
        raise NotFound(f"no model {request.model!r}", field="model")


class ServerThread:
    """Runs the servicer on a free port of 127.0.0.1 until `stop`; may be stopped and started again on its port."""

    def __init__(self, servicer: ScriptedInference) -> None:
        self.servicer = servicer
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._leave = asyncio.Event()
            server, checker = new_server(SERVICE)
            inference_pb2_grpc.add_InferenceServiceServicer_to_server(self.servicer, server)
            self.port = listen(server, "127.0.0.1", self.port)
            await server.start()
            await set_serving(checker, True, SERVICE)
            ready.set()
            await self._leave.wait()
            await server.stop(0)

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert ready.wait(20), "the scripted server did not start"

    def stop(self) -> None:
        assert self._loop is not None and self._leave is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(20)
