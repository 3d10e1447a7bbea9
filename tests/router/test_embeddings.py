"""Embedding requests over real sessions: spread over replicas, asked again when one dies, of one revision."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from rig import Rig, eventually
from scripted_engine import ScriptedEngine, embedding_values

from headway.core.errors import Unavailable
from headway.demo import DEMO_DIR
from headway.proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN
from headway.router.handler import RequestHandler
from headway.router.metrics import RouterMetrics
from headway.router.validation.embedding import UserEmbedding
from headway.router.validation.request import FieldNames

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
INPUTS = [[index + 1, 7, 9] for index in range(40)]


def ask(inputs: list[list[int]], pooling: str = "last") -> UserEmbedding:
    name = "inputs[{}]".format
    return UserEmbedding(names=FieldNames({}), input_name=name, inputs=inputs, pooling=pooling, normalize=False)


@pytest.fixture
def metrics(rig: Rig) -> RouterMetrics:
    return RouterMetrics(rig.catalogue.models)


@pytest.fixture
def handler(rig: Rig, metrics: RouterMetrics) -> RequestHandler:
    return RequestHandler(rig.catalogue, rig.dispatcher, metrics)


@pytest.fixture
async def engines(rig: Rig, new_engine: NewEngine) -> list[ScriptedEngine]:
    """Two of one model, whose text files are real."""
    files = {name: (DEMO_DIR / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    made = [await new_engine(name) for name in ("r0", "r1")]
    for engine in made:
        engine.files = files
        engine.cached_tokens = 2
    await rig.connect(*made)
    return made


def values(vectors: list[bytes]) -> list[list[float]]:
    return [np.frombuffer(vector, "<f4").tolist() for vector in vectors]


async def test_inputs_go_to_all_replicas_and_come_back_in_order(
    handler: RequestHandler, metrics: RouterMetrics, engines: list[ScriptedEngine]
) -> None:
    found = await handler.embeddings.run(ask(INPUTS, "mean"), front="grpc", method="Embed")
    assert values(found.vectors) == [embedding_values(ids, POOLING_MEAN) for ids in INPUTS]
    submits = [submit for engine in engines for submit in engine.submits]
    assert all(engine.submits for engine in engines) and len(submits) == len(INPUTS)
    assert {(submit.max_new_tokens, submit.pooling, submit.cache_bypass) for submit in submits} == {(0, 2, True)}
    assert (found.prompt_tokens, found.cached_tokens, found.model_revision) == (120, 80, "rev")
    text = metrics.exposition().decode().splitlines()
    assert 'headway_requests_total{front="grpc",model="m",outcome="embedded"} 1.0' in text
    assert 'headway_prompt_tokens_total{model="m"} 120.0' in text
    assert 'headway_cached_tokens_total{model="m"} 80.0' in text
    assert (metrics.inflight, metrics.errors) == (0, 0)


async def test_a_replica_that_dies_is_replaced(handler: RequestHandler, engines: list[ScriptedEngine]) -> None:
    for engine in engines:
        engine.hold = True
    answer = asyncio.ensure_future(handler.embeddings.run(ask(INPUTS), front="grpc", method="Embed"))
    await eventually(lambda: sum(len(engine.submits) for engine in engines) == len(INPUTS))
    lost = len(engines[0].submits)
    await engines[0].die()
    engines[1].hold = False
    found = await answer
    assert values(found.vectors) == [embedding_values(ids, POOLING_LAST) for ids in INPUTS]
    assert found.migrations == lost > 0


async def test_no_input_goes_to_another_revision(
    rig: Rig, handler: RequestHandler, engines: list[ScriptedEngine], new_engine: NewEngine
) -> None:
    other = await new_engine("r2", revision="another")
    other.files = engines[0].files
    await rig.connect(other)
    await eventually(lambda: len(rig.catalogue.ready_replicas("m")) == 3)
    rig.dispatcher._patience_s = 0.2
    for engine in engines:
        engine.hold = True
    answer = asyncio.ensure_future(handler.embeddings.run(ask(INPUTS), front="grpc", method="Embed"))
    await eventually(lambda: all(engine.submits for engine in engines))
    for engine in engines:
        await engine.die()
    with pytest.raises(Unavailable):
        await answer
    assert not other.submits and not rig.dispatcher.live_requests
    again = await handler.embeddings.run(ask(INPUTS), front="grpc", method="Embed")
    assert again.model_revision == "another" and len(other.submits) == len(INPUTS)
