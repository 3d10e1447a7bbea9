"""The router's inner half put together, as the process does it, for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from scripted_engine import ScriptedEngine

from headway.core.sampling import SamplingParams
from headway.router.dispatch import FleetDispatcher
from headway.router.index import PrefixIndex
from headway.router.policy import Ledger, Policy
from headway.router.replicas import Fleet, FleetCatalogue
from headway.router.types import EngineRequest, TokenChunk


class Rig:
    """Index, policy, fleet, catalogue and dispatcher over real sessions."""

    def __init__(self, *, failover_patience_s: float = 10.0) -> None:
        self.index = PrefixIndex()
        self.ledger = Ledger()
        self.fleet = Fleet(router_id="router-t", index=self.index, ledger=self.ledger)
        self.catalogue = FleetCatalogue(self.fleet)
        self.dispatcher = FleetDispatcher(
            self.fleet, self.catalogue, self.index, Policy(self.ledger), failover_patience_s=failover_patience_s
        )

    async def connect(self, *engines: ScriptedEngine) -> None:
        """Static sessions with these engines, all in sync."""
        for engine in engines:
            self.fleet.add_static(engine.endpoint)
        await eventually(lambda: sum(replica.ready for replica in self.fleet.replicas()) >= len(engines))

    async def run(self, request: EngineRequest) -> list[TokenChunk]:
        """All chunks of a request."""
        async with aclosing(self.dispatcher.stream(request)) as chunks:
            return [chunk async for chunk in chunks]

    async def tokens(self, request: EngineRequest) -> list[int]:
        return tokens_of(await self.run(request))


def tokens_of(chunks: list[TokenChunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def request(
    request_id: str = "q",
    *,
    prompt: list[int] | None = None,
    count: int = 8,
    seed: int = 7,
    model: str = "m",
    salt: str = "",
    bypass: bool = False,
    **more: Any,
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        model=model,
        token_ids=prompt if prompt is not None else [1, 2, 3, 4, 5],
        sampling=SamplingParams(seed=seed),
        max_new_tokens=count,
        eos_token_ids=(2,),
        cache_salt=salt,
        cache_bypass=bypass,
        **more,
    )


async def eventually(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.005)
