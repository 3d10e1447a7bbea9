"""The adapters that requests may name: loaded, replaced and unloaded while the engine runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from ...core.adapters import check_adapter
from ...core.errors import AlreadyExists, ConfigError, InvalidRequest, NotFound, Refused, Unavailable
from ...proto.headway.v1 import engine_pb2
from ..engine import Command, Forget
from ..scheduler import BASE

MAX_LOADED = 256


class Loader(Protocol):
    """Reads adapters on every rank. Methods block."""

    def next_number(self) -> int: ...

    def revision(self, path: Path) -> str: ...

    def load(self, number: int, path: Path) -> tuple[str, int]: ...


class Held(NamedTuple):
    """An adapter that all ranks have read, and what the engine knows it by."""

    number: int
    message: engine_pb2.Adapter


class AdapterRegistry:
    """Adapters by name, on the event loop. `on_change` gets the whole list, by name."""

    def __init__(
        self,
        model: str,
        loader: Loader,
        inbox: SimpleQueue[Command],
        on_change: Callable[[list[engine_pb2.Adapter]], None],
    ) -> None:
        self._model = model
        self._loader = loader
        self._inbox = inbox
        self._on_change = on_change
        self._held: dict[str, Held] = {}
        self._loading = asyncio.Lock()

    def adapters(self) -> list[engine_pb2.Adapter]:
        """All of them, by name."""
        return [held.message for _, held in sorted(self._held.items())]

    def number(self, submit: engine_pb2.Submit) -> int:
        """What the engine knows the request's adapter by.

        Raises NotFound when it is not held, Unavailable when another revision of it is: the block keys that came with
        the request are not those of what would be computed.
        """
        if not submit.HasField("adapter"):
            return BASE
        held = self._held.get(submit.adapter.name)
        if held is None:
            raise NotFound(f"adapter {submit.adapter.name!r} is not loaded here", field="adapter.name")
        if held.message.revision != submit.adapter.revision:
            raise Unavailable(
                f"adapter {submit.adapter.name!r} is at revision {held.message.revision} here, and the request is for "
                f"{submit.adapter.revision}",
                field="adapter.revision",
                retry_after_s=0.1,
            )
        return held.number

    async def load(self, name: str, path: str) -> engine_pb2.Adapter:
        """Reads an adapter in place of what had its name; without effect when that is the same.

        Raises InvalidRequest for what cannot be used, AlreadyExists for the model's own name, Refused and Unavailable.
        """
        check_adapter(name, path)
        if name == self._model:
            raise AlreadyExists(f"name: the model itself is called {name!r}", field="name")
        async with self._loading:
            try:
                return await self._load(name, path)
            except ConfigError as error:
                raise InvalidRequest(f"adapter {name!r}: {error}", field="path") from None

    async def _load(self, name: str, path: str) -> engine_pb2.Adapter:
        before = self._held.get(name)
        if before is not None and before.message.path == path:
            found = await asyncio.to_thread(self._loader.revision, Path(path))
            if found == before.message.revision:
                return before.message
        if before is None and len(self._held) >= MAX_LOADED:
            raise Refused(f"{MAX_LOADED} adapters are loaded, and no more fit: unload one first", field="name")
        number = self._loader.next_number()
        try:
            revision, rank = await asyncio.to_thread(self._loader.load, number, Path(path))
        except BaseException:  # a call that is cancelled, too: its reading goes on, and nobody would know the number
            self._inbox.put(Forget(number))
            raise
        message = engine_pb2.Adapter(name=name, revision=revision, path=path, rank=rank)
        self._held[name] = Held(number, message)
        if before is not None:
            self._inbox.put(Forget(before.number))
        self._on_change(self.adapters())
        return message

    async def unload(self, name: str) -> None:
        """Lets it go; requests that run with it end with it. Raises NotFound."""
        async with self._loading:
            held = self._held.pop(name, None)
            if held is None:
                raise NotFound(f"adapter {name!r} is not loaded here", field="name")
            self._inbox.put(Forget(held.number))
            self._on_change(self.adapters())
