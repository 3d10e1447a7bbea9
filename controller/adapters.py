"""LoRA adapters: which replica is to hold which, and the calls that bring that about."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import grpc

from ..core.adapters import check_adapter
from ..core.errors import AlreadyExists, InvalidRequest, NotFound, Refused
from ..core.servers import CHANNEL_OPTIONS
from ..proto.headway.v1 import engine_pb2, engine_pb2_grpc
from .changes import Edit, Outcome, known_model
from .state import AdapterRecord, DesiredState

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 150.0
# What a replica could not read may have been mended since.
RETRY_S = 10.0
# Answers that say what is wrong with the adapter; any other one, that the replica could not be asked.
VERDICTS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION)


def load_adapter(model: str, name: str, path: str) -> Edit:
    """Has the model's replicas hold an adapter; another path replaces the one of that name."""

    def edit(state: DesiredState) -> Outcome:
        check_adapter(name, path)
        base = adapted_model(state, model)
        if name in state.models:
            raise AlreadyExists(f"name: a model is called {name!r}", field="name")
        before = state.adapters.get(name)
        if before is not None and before.model != base:
            raise AlreadyExists(f"name: an adapter of {before.model} is called {name!r}", field="name")
        record = AdapterRecord(name=name, model=base, path=path)
        after = state.following(adapters=state.adapters | {name: record})
        steps = [f"load adapter {name} of {base} from {path} on each replica"]
        return Outcome(after, f"load adapter {name} of {base} from {path}", steps)

    return edit


def unload_adapter(name: str) -> Edit:
    """Lets an adapter go."""

    def edit(state: DesiredState) -> Outcome:
        record = state.adapters.get(name)
        if record is None:
            known = ", ".join(sorted(state.adapters)) or "none"
            raise NotFound(f"there is no adapter {name!r}; loaded: {known}", field="name")
        left = {other: adapter for other, adapter in state.adapters.items() if other != name}
        steps = [f"unload adapter {name} of {record.model} on each replica"]
        return Outcome(state.following(adapters=left), f"unload adapter {name} of {record.model}", steps)

    return edit


def adapted_model(state: DesiredState, model: str) -> str:
    """The name of the model that is meant; the only one when empty. Raises NotFound, InvalidRequest."""
    if not model and len(state.models) == 1:
        return next(iter(state.models))
    if not model:
        raise InvalidRequest(f"name one of the models: {', '.join(sorted(state.models))}", field="model")
    return known_model(state, model).name


class Difference(NamedTuple):
    """What one replica has still to load (path by name) and to unload."""

    load: dict[str, str]
    unload: list[str]


def difference(wanted: Mapping[str, str], held: Iterable[engine_pb2.Adapter], except_for: set[str]) -> Difference:
    """From what a replica holds to the paths that are `wanted`, by name; some names are left alone."""
    paths = {adapter.name: adapter.path for adapter in held}
    load = {name: path for name, path in wanted.items() if paths.get(name) != path and name not in except_for}
    return Difference(load, [name for name in paths if name not in wanted and name not in except_for])


class ReplicaAdapters:
    """How one start of a replica gets on with its adapters: `errors` by name, for watchers."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self.busy = False
        self._retry_at: dict[str, float] = {}

    def due(self, gap: Difference) -> Difference:
        """What is to be done now; what failed waits."""
        self.errors = {name: error for name, error in self.errors.items() if name in gap.load}
        now = time.monotonic()
        load = {name: path for name, path in gap.load.items() if self._retry_at.get(name, 0.0) <= now}
        return Difference(load, gap.unload)

    async def close_gap(self, endpoint: str, gap: Difference) -> None:
        """Loads and unloads. What fails is kept in `errors` and tried again later."""
        for name, path in gap.load.items():
            try:
                await load(endpoint, name, path)
                self._retry_at.pop(name, None)
            except (grpc.aio.AioRpcError, InvalidRequest) as error:
                self.errors[name] = error.message if isinstance(error, InvalidRequest) else error.details() or ""
                self._retry_at[name] = time.monotonic() + RETRY_S
                log.warning("%s does not take adapter %s: %s", endpoint, name, self.errors[name])
        for name in gap.unload:
            await unload(endpoint, name)


class Pushes:
    """Names of the adapters that an operator is loading: they are not part of what is wanted yet."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Raises Refused when the name is being loaded already."""
        if name in self.names:
            raise Refused(f"name: adapter {name!r} is being loaded already", field="name")
        self.names.add(name)
        try:
            yield
        finally:
            self.names.discard(name)


async def load_on_all(endpoints: Iterable[str], name: str, path: str) -> None:
    """Asks each leader. Raises InvalidRequest when one says that the adapter cannot be used; one that cannot be asked
    is left for later."""
    calls = [load(endpoint, name, path) for endpoint in endpoints]
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, grpc.aio.AioRpcError):
            log.warning("a replica cannot be asked to load adapter %s now: %s", name, result.details())
        elif isinstance(result, BaseException):
            raise result


async def load(endpoint: str, name: str, path: str) -> None:
    """Asks one leader. Raises InvalidRequest with its verdict on the adapter, AioRpcError when there is none."""
    request = engine_pb2.EngineServiceLoadAdapterRequest(name=name, path=path)
    try:
        async with grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
            await engine_pb2_grpc.EngineServiceStub(channel).LoadAdapter(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() in VERDICTS:
            raise InvalidRequest(error.details() or f"adapter {name!r} is refused", field="path") from None
        raise


async def unload(endpoint: str, name: str) -> None:
    """Asks one leader; without effect when it is not there any more. Raises AioRpcError."""
    request = engine_pb2.EngineServiceUnloadAdapterRequest(name=name)
    try:
        async with grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
            await engine_pb2_grpc.EngineServiceStub(channel).UnloadAdapter(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
