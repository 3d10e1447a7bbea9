"""Sandboxes: a few processes that try grammars, each killed and replaced when one takes too long or kills it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

import msgspec

from ...core.constraints import Grammar
from .limits import COMPILE_S
from .sandbox import LENGTH, Job, Setup, Verdict, frame

SANDBOXES = 2
START_S = 60.0


class SandboxPool:
    """Starts its processes when they are first needed. For one event loop."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._ends: set[asyncio.Task[int]] = set()
        self._free = asyncio.Semaphore(SANDBOXES)

    async def try_grammar(self, grammar: Grammar) -> Verdict:
        """The verdict on it, within COMPILE_S from when its turn comes."""
        async with self._free:
            return await self._try(grammar)

    async def close(self) -> None:
        """Ends all processes, and returns when they are gone."""
        for process in list(self._all):
            self._end(process)
        await asyncio.gather(*self._ends)

    async def _try(self, grammar: Grammar) -> Verdict:
        # One that waited for work may have been dead before this came: only a new one's death is the grammar's doing.
        verdict = await self._ask_for(self._idle.pop(), grammar) if self._idle else None
        if verdict is None:
            verdict = await self._ask_for(await self._start(), grammar)
        return verdict or Verdict("", "too costly: its compiler ran out of memory or stack")

    async def _ask_for(self, process: Process, grammar: Grammar) -> Verdict | None:
        """What this sandbox says of the grammar; None when it dies over it, or was dead."""
        try:
            verdict = await asyncio.wait_for(_ask(process, Job(grammar)), COMPILE_S)
        except TimeoutError:
            self._end(process)
            return Verdict("", f"too costly: it took more than the {COMPILE_S:g} s allowed to compile")
        except (asyncio.IncompleteReadError, OSError):
            self._end(process)
            return None
        except BaseException:
            self._end(process)
            raise
        self._idle.append(process)
        return verdict

    async def _start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headway.worker.structured.sandbox", stdin=PIPE, stdout=PIPE
        )
        self._all.add(process)
        try:
            await asyncio.wait_for(_ask(process, self._setup), START_S)
        except BaseException:
            self._end(process)
            raise
        return process

    def _end(self, process: Process) -> None:
        self._all.discard(process)
        with suppress(ProcessLookupError):
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        end = asyncio.create_task(process.wait())
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)


async def _ask(process: Process, message: msgspec.Struct) -> Verdict:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(frame(message))
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Verdict)
