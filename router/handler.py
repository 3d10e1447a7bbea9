"""The one path of a request that both fronts share: check, find the model, text to tokens, dispatch, tokens to text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from ..core.errors import DeadlineExceeded, Internal, InvalidRequest, NotFound
from ..proto.headway.v1 import sampling_pb2
from .answer import Answer
from .embedding import EmbeddingHandler
from .events import Event
from .observer import RequestObserver, RequestRecord, reason_of
from .running import RunningIds
from .sequences import Sequences
from .text.library import TextLibrary
from .text.model import INLINE_TOKENS, ModelText
from .types import Catalogue, Dispatcher, EngineRequest, ServedModel
from .validation.fields import check_fields, check_messages
from .validation.limits import MAX_DETOKENIZE_IDS
from .validation.request import Message, UserRequest
from .validation.resolve import check_token_ids, context_too_long, resolve
from .validation.verdicts import in_callers_words


class RequestHandler:
    """Serves requests of both fronts. Holds no state of a request: that lives in the generator of `run`."""

    def __init__(
        self, catalogue: Catalogue, dispatcher: Dispatcher, observer: RequestObserver, texts: TextLibrary | None = None
    ) -> None:
        self.catalogue = catalogue
        self._dispatcher = dispatcher
        self._observer = observer
        self._texts = texts or TextLibrary()
        self._running = RunningIds()
        self.embeddings = EmbeddingHandler(catalogue, dispatcher, observer, self._texts, self._running)

    async def run(
        self, request: UserRequest, *, front: str, method: str, deadline: float | None = None
    ) -> AsyncGenerator[Event]:
        """Started, deltas, Finished for each sequence, Usage. Closing the generator at any time aborts the request.

        `deadline` is in seconds of the loop's clock. Raises the tree of core/errors.py, before the first event or
        between two; a request that Abort ended finishes with FINISH_REASON_ABORTED.
        """
        record = RequestRecord(
            front=front, method=method, arrived_at=time.perf_counter(), model=request.model, sequences=request.n
        )
        self._observer.arrived(record)
        answer: Answer | None = None
        try:
            model, text, engine = await self._prepare(request, record, deadline)
            echoed = await _prompt_text(request, engine, text) if request.echo else ""
            answer = Answer(request, engine, model, text, record, self._observer, echoed)
            with self._running.alone(engine.request_id, request.names["request_id"]), in_callers_words(request):
                async with aclosing(self._events(answer, engine, request.n, deadline)) as events:
                    async for event in events:
                        yield event
            yield answer.usage()
        except BaseException as error:
            if not isinstance(error, GeneratorExit) or answer is None or not answer.finished:
                record.error = reason_of(error)
                record.finish_reason = sampling_pb2.FINISH_REASON_UNSPECIFIED
            raise
        finally:
            record.ended_at = time.perf_counter()
            self._observer.ended(record)

    async def _events(
        self, answer: Answer, engine: EngineRequest, count: int, deadline: float | None
    ) -> AsyncGenerator[Event]:
        """All of the answer but the usage. The request is aborted when the deadline passes."""
        expiry = _Expiry(deadline)
        sequences = Sequences(self._dispatcher, engine, count)
        with expiry.armed(self._dispatcher, engine.request_id):
            async with aclosing(sequences.chunks()) as chunks:
                async for index, chunk in chunks:
                    for event in answer.take(index, chunk):
                        yield event
                    if not answer.ended(index):
                        continue
                    if expiry.passed and chunk.finish_reason == sampling_pb2.FINISH_REASON_ABORTED:
                        raise DeadlineExceeded(f"the deadline passed after {answer.completion_tokens} tokens")
                    yield answer.end(index)
                    if answer.finished:
                        return
                    await sequences.end(index)
        raise Internal("the replica's stream ended without a finish reason")

    async def _prepare(
        self, request: UserRequest, record: RequestRecord, deadline: float | None
    ) -> tuple[ServedModel, ModelText, EngineRequest]:
        check_fields(request)
        try:
            model = self.catalogue.get(request.model)
        except NotFound as error:
            raise NotFound(error.message, field=request.names["model"]) from None
        record.model = model.name
        text = await self._texts.get(model)
        prompt = await self._prompt_ids(request, model, text)
        bad_words = await text.bad_words(request.bad_words) if request.bad_words else []
        engine = resolve(request, model, prompt, bad_words=bad_words, deadline=deadline)
        record.request_id = engine.request_id
        record.prompt_tokens = len(engine.token_ids)
        return model, text, engine

    async def _prompt_ids(self, request: UserRequest, model: ServedModel, text: ModelText) -> list[int]:
        """Token ids of the prompt or conversation. Raises InvalidRequest when there is none, ContextTooLong early."""
        if request.chat:
            return await self._conversation_ids(request, model, text)
        prompt, field = request.prompt, request.names["prompt"]
        if not prompt:
            raise InvalidRequest(f"{field} is empty; at least one token", field=field)
        if isinstance(prompt, list):
            return prompt
        _check_length(request, model, text, prompt)
        ids = await text.encode(prompt, add_special_tokens=True)
        if not ids:
            raise InvalidRequest(f"{field} has no tokens", field=field)
        return ids

    async def _conversation_ids(self, request: UserRequest, model: ServedModel, text: ModelText) -> list[int]:
        names = request.names
        pieces = await text.render(
            request.messages,
            request.template_args,
            args_field=names["template_args"],
            messages_field=names["messages"],
        )
        _check_length(request, model, text, *pieces)
        ids = await text.encode_pieces(pieces)
        if not ids:
            field = names["messages"]
            raise InvalidRequest(f"{field} is empty; at least one token", field=field)
        return ids

    async def tokenize(
        self, model_name: str, text: str, messages: list[Message], template_args: Mapping[str, Any], special: bool
    ) -> tuple[list[int], ServedModel]:
        """Ids of `text` or, when there are any, of `messages` after the template."""
        if bool(text) == bool(messages):
            raise InvalidRequest("give exactly one of text and messages", field="text")
        model = self.catalogue.get(model_name)
        side = await self._texts.get(model)
        if messages:
            check_messages(messages, "messages")
            pieces = await side.render(messages, template_args, args_field="template_args", messages_field="messages")
            return await side.encode_pieces(pieces), model
        return await side.encode(text, add_special_tokens=special), model

    async def detokenize(self, model_name: str, token_ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included, so that tokenizing it again gives the ids back where it can.

        Raises InvalidRequest for more ids than any context of the model holds, and for ids outside the vocabulary.
        """
        model = self.catalogue.get(model_name)
        most = max(MAX_DETOKENIZE_IDS, model.max_context_tokens)
        if len(token_ids) > most:
            raise InvalidRequest(f"token_ids has {len(token_ids)} ids; at most {most}", field="token_ids")
        for start in range(0, len(token_ids), INLINE_TOKENS):
            check_token_ids(token_ids[start : start + INLINE_TOKENS], model.vocab_size, "token_ids", start)
            await asyncio.sleep(0)
        return await (await self._texts.get(model)).decode(token_ids)

    async def has_template(self, model: ServedModel) -> bool:
        """Whether the model can chat."""
        return (await self._texts.get(model)).template is not None

    def abort(self, request_id: str) -> bool:
        """Ends a live request; False when there is none."""
        return self._dispatcher.abort(request_id)


def _check_length(request: UserRequest, model: ServedModel, text: ModelText, *pieces: str) -> None:
    """Refuses the absurd before it is tokenized."""
    if (least := sum(map(text.least_tokens, pieces))) >= model.max_context_tokens:
        raise context_too_long(request, model, f"at least {least}")


async def _prompt_text(request: UserRequest, engine: EngineRequest, text: ModelText) -> str:
    """The prompt as text, for a caller who wants it back."""
    return request.prompt if isinstance(request.prompt, str) else await text.decode(engine.token_ids)


class _Expiry:
    """The end of a request's time. Asking the clock again later would not do: timers may fire a little early."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self.passed = False

    @contextmanager
    def armed(self, dispatcher: Dispatcher, request_id: str) -> Iterator[None]:
        """Aborts the request if the deadline passes inside."""

        def expire() -> None:
            self.passed = True
            dispatcher.abort(request_id)

        if self._deadline is None:
            yield
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._deadline:
            raise DeadlineExceeded("the deadline passed before the request reached a replica")
        timer = loop.call_at(self._deadline, expire)
        try:
            yield
        finally:
            timer.cancel()
