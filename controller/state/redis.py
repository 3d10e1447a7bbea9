"""The cluster's store: one key of a Redis server."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

import msgspec
from redis import asyncio as redis
from redis import exceptions

from ...core.errors import ConfigError, Stale, Unavailable
from .values import DesiredState

# Compares and sets in one step inside the server: ARGV is the revision that must be stored, then the new state.
_COMMIT = """
local stored = redis.call('HGET', KEYS[1], 'revision') or '0'
if stored ~= ARGV[1] then return stored end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'state', ARGV[3])
return false
"""


class RedisStore:
    """Holds the state in the hash `key` of the server at `url`: its revision, and the state as JSON."""

    def __init__(self, url: str, key: str = "headway:state") -> None:
        try:
            self._client: Any = redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        except ValueError as error:
            raise ConfigError(f"{url!r} is no address of a Redis server: {error}") from None
        self._key = key

    async def load(self) -> DesiredState:
        data = await self._ask(self._client.hget(self._key, "state"))
        if data is None:
            return DesiredState()
        try:
            return msgspec.json.decode(data, type=DesiredState)
        except msgspec.DecodeError as error:
            raise ConfigError(f"Redis key {self._key} is no state of a controller: {error}") from None

    async def commit(self, state: DesiredState) -> None:
        before = str(state.revision - 1)
        arguments = (before, str(state.revision), msgspec.json.encode(state))
        stored = await self._ask(self._client.eval(_COMMIT, 1, self._key, *arguments))
        if stored is not None:
            raise Stale(f"the state is at revision {int(stored)}, not {before}")

    async def close(self) -> None:
        await self._client.aclose()

    @staticmethod
    async def _ask(question: object) -> Any:
        try:
            return await cast("Awaitable[Any]", question)
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise Unavailable(f"the state's Redis server does not answer: {error}", retry_after_s=1.0) from None
