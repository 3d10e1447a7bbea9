"""The sequences of one request on their way, as one stream of chunks.

Sequence 0 goes first and the others follow with its first token: by then the pages of the prompt are computed, and all
share them. Each is a request of its own to the dispatcher, which moves it when its replica dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec

from ..proto.headway.v1 import sampling_pb2
from .types import Dispatcher, EngineRequest, TokenChunk

ABORTED = sampling_pb2.FINISH_REASON_ABORTED

# A sequence, and a chunk of it, its failure, or None at its end.
_News = tuple[int, TokenChunk | Exception | None]


class Sequences:
    """Runs `count` sequences of `request`. Close it: that stops what still runs."""

    def __init__(self, dispatcher: Dispatcher, request: EngineRequest, count: int) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._count = count
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Short, so that a slow reader finds the tokens of several steps in one chunk.
        self._news: asyncio.Queue[_News] = asyncio.Queue(maxsize=1)

    def chunks(self) -> AsyncGenerator[tuple[int, TokenChunk]]:
        """Chunks with the sequence they are of, the first one of sequence 0. The first failure ends all."""
        return self._only() if self._count == 1 else self._merged()

    async def end(self, index: int) -> None:
        """Nothing more of this sequence is wanted."""
        await self._stop(index)

    async def _only(self) -> AsyncGenerator[tuple[int, TokenChunk]]:
        async with aclosing(self._open(0)) as stream:
            async for chunk in stream:
                yield 0, chunk

    async def _merged(self) -> AsyncGenerator[tuple[int, TokenChunk]]:
        self._start(0)
        try:
            first = await self._next()
            if first is not None:
                stopped = first[1].finish_reason == ABORTED
                for index in range(1, 1 if stopped else self._count):
                    self._start(index)
                yield first
                for index in range(1, self._count if stopped else 1):
                    yield index, TokenChunk(token_ids=[], replica_id="", finish_reason=ABORTED)
            while (found := await self._next()) is not None:
                yield found
        finally:
            await self._stop(*self._tasks)

    async def _next(self) -> tuple[int, TokenChunk] | None:
        """The next chunk of a sequence that still counts; None when all have ended."""
        while self._tasks:
            index, news = await self._news.get()
            if index not in self._tasks:  # stopped meanwhile
                continue
            if isinstance(news, Exception):
                raise news
            if news is not None:
                return index, news
            del self._tasks[index]
        return None

    def _open(self, index: int) -> AsyncGenerator[TokenChunk]:
        request = self._request
        if index:
            request = msgspec.structs.replace(request, sequence=index, prompt_logprobs=None)
        return cast("AsyncGenerator[TokenChunk]", self._dispatcher.stream(request))

    def _start(self, index: int) -> None:
        self._tasks[index] = asyncio.create_task(self._pump(index), name=f"{self._request.request_id} {index}")

    async def _pump(self, index: int) -> None:
        try:
            async with aclosing(self._open(index)) as stream:
                async for chunk in stream:
                    await self._news.put((index, chunk))
        except Exception as error:
            await self._news.put((index, error))
        else:
            await self._news.put((index, None))

    async def _stop(self, *indexes: int) -> None:
        tasks = [task for index in indexes if (task := self._tasks.pop(index, None)) is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
