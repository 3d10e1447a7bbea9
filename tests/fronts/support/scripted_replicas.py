"""Catalogue and Dispatcher at the border of router/types.py: scripted token ids where replicas would answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from headway.core.errors import AlreadyExists, HeadwayError, NotFound
from headway.core.sampling import SamplingParams
from headway.demo import DEMO_DIR
from headway.proto.headway.v1 import sampling_pb2
from headway.router.observer import RequestRecord
from headway.router.types import EngineRequest, PlaceLogprobs, ServedModel, TokenChunk

ASSETS = {
    name: (DEMO_DIR / name).read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    if (DEMO_DIR / name).exists()
}
CONTEXT = 256
EOS = 0

# One step of a script: a chunk to send, an error to raise, or an event to wait for.
Step = TokenChunk | HeadwayError | asyncio.Event


def demo_model(name: str = "demo", assets: dict[str, bytes] | None = None) -> ServedModel:
    return ServedModel(
        name=name,
        revision=f"revision-of-{name}",
        page_size=16,
        max_context_tokens=CONTEXT,
        vocab_size=4096,
        eos_token_ids=(EOS,),
        default_sampling=SamplingParams(temperature=0.5, top_p=0.875),
        text_assets=ASSETS if assets is None else assets,
        ready_replicas=2,
    )


class ScriptedCatalogue:
    def __init__(self, models: Iterable[ServedModel]) -> None:
        self.by_name = {model.name: model for model in models}

    def models(self) -> list[ServedModel]:
        return [self.by_name[name] for name in sorted(self.by_name)]

    def get(self, name: str) -> ServedModel:
        if not name and self.by_name:
            return next(iter(self.by_name.values()))
        if name not in self.by_name:
            raise NotFound(f"no model {name!r}; there are {', '.join(self.by_name)}", field="model")
        return self.by_name[name]


def chunk(
    *token_ids: int,
    finish: sampling_pb2.FinishReason = sampling_pb2.FINISH_REASON_UNSPECIFIED,
    stop_id: int | None = None,
    cached: int = 0,
    **more: Any,
) -> TokenChunk:
    return TokenChunk(
        token_ids=list(token_ids),
        replica_id="replica-1",
        cached_tokens=cached,
        finish_reason=finish,
        stop_token_id=stop_id,
        **more,
    )


def place(*entries: tuple[int, float]) -> PlaceLogprobs:
    """One place's log probabilities: its own token, then the likeliest."""
    return PlaceLogprobs(entries)


def one_by_one(token_ids: list[int], finish: sampling_pb2.FinishReason) -> list[Step]:
    """A chunk a token, the last with the reason."""
    return [*(chunk(token_id) for token_id in token_ids[:-1]), chunk(token_ids[-1], finish=finish)]


class ScriptedDispatcher:
    """Replays `script(request)`; remembers what it was given and what was closed before its end."""

    def __init__(self) -> None:
        self.script: Callable[[EngineRequest], Iterable[Step]] = lambda request: one_by_one(
            [100 + index % 200 for index in range(request.max_new_tokens)], sampling_pb2.FINISH_REASON_LENGTH
        )
        self.requests: list[EngineRequest] = []
        self.live: dict[tuple[str, int], asyncio.Event] = {}
        self.closed_early: list[str] = []

    async def stream(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        key = request.request_id, request.sequence
        if key in self.live:
            raise AlreadyExists(f"request {request.request_id} is running", field="request_id")
        self.requests.append(request)
        aborted = self.live[key] = asyncio.Event()
        ended = False
        try:
            for step in self.script(request):
                if isinstance(step, HeadwayError):
                    ended = True
                    raise step
                if isinstance(step, asyncio.Event):
                    await _first_of(step, aborted)
                else:
                    ended = step.finish_reason != 0
                    await asyncio.sleep(0)
                if aborted.is_set():
                    ended = True
                    yield chunk(finish=sampling_pb2.FINISH_REASON_ABORTED)
                    return
                if isinstance(step, TokenChunk):
                    yield step
        finally:
            del self.live[key]
            if not ended:
                self.closed_early.append(request.request_id)

    def abort(self, request_id: str) -> bool:
        found = [aborted for (name, _), aborted in self.live.items() if name == request_id]
        for aborted in found:
            aborted.set()
        return bool(found)

    async def settled(self) -> None:
        """Returns when nothing runs any more."""
        await until(lambda: not self.live)

    async def busy(self, count: int = 1) -> None:
        """Returns when so many requests run."""
        await until(lambda: len(self.live) >= count)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what no event tells."""
    while not condition():  # noqa: ASYNC110 - the test's own timeout is the end of it
        await asyncio.sleep(0.005)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class RecordingObserver:
    """Counts calls, and keeps the records that ended."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ended_records: list[RequestRecord] = []
        self.later_tokens = 0

    def arrived(self, record: RequestRecord) -> None:
        self.calls.append("arrived")

    def first_token(self, record: RequestRecord) -> None:
        assert record.first_token_at >= record.arrived_at
        self.calls.append("first_token")

    def tokens(self, record: RequestRecord, count: int, seconds: float) -> None:
        assert seconds >= 0
        self.later_tokens += count

    def ended(self, record: RequestRecord) -> None:
        assert (record.finish_reason != 0) != bool(record.error)
        self.calls.append("ended")
        self.ended_records.append(record)
