"""Worker groups with the demo model, each in processes of its own and shared by all tests of this folder."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from engine_client import EngineSession, channel_to
from worker_process import WorkerProcess


@pytest.fixture(scope="session")
def worker_of() -> Iterator[Callable[..., WorkerProcess]]:
    """The ready worker of these arguments, started when first asked for."""
    workers: dict[tuple[str, ...], WorkerProcess] = {}

    def get(*arguments: str) -> WorkerProcess:
        if arguments not in workers:
            workers[arguments] = WorkerProcess(*arguments)
            workers[arguments].wait_ready()
        return workers[arguments]

    yield get
    for worker in workers.values():
        worker.close()


SessionTo = Callable[..., AbstractAsyncContextManager[EngineSession]]


@pytest.fixture
def session_to() -> SessionTo:
    """An open session with a worker, on a connection of its own."""

    @asynccontextmanager
    async def connect(
        worker: WorkerProcess, router_id: str = "router", *, reading: bool = True, **hello: object
    ) -> AsyncIterator[EngineSession]:
        async with channel_to(worker.endpoint) as channel:
            session = await EngineSession(channel, router_id, **hello).open(reading=reading)  # type: ignore[arg-type]
            try:
                yield session
            finally:
                await session.close()

    return connect
