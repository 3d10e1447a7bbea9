"""Both fronts, served for real over scripted replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from headway.tests.fronts.support.serving import Fronts, serve


@pytest.fixture
async def fronts() -> AsyncIterator[Fronts]:
    async with serve() as fronts:
        yield fronts
        await fronts.dispatcher.settled()
        calls = fronts.observer.calls
        assert calls.count("arrived") == calls.count("ended")


@pytest.fixture
async def http(fronts: Fronts) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=fronts.url, trust_env=False) as client:
        yield client


@pytest.fixture
async def client(fronts: Fronts) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client that everybody uses."""
    async with openai.AsyncOpenAI(
        base_url=f"{fronts.url}/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as client:
        yield client
