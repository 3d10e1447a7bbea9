"""Embeddings on both fronts: the same vectors, the same verdicts, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import grpc
import httpx
import msgspec
import numpy as np
import openai
import pytest

from headway.client import AsyncHeadway, Cancelled, DeadlineExceeded, HeadwayError, InvalidRequest
from headway.core.errors import Overloaded, Unavailable
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import sampling_pb2
from headway.proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN
from headway.router import embedding
from headway.router.fronts.openai.embeddings import send_embeddings
from headway.router.types import EngineRequest
from headway.router.validation import limits
from headway.tests.fronts.support.scripted_replicas import Step, chunk, demo_model
from headway.tests.fronts.support.serving import Fronts

SIZE = 8
TEXTS = ["one", "two words", "def f(x):\n    return '🦀'", "word " * 60]


def vector_of(request: EngineRequest) -> np.ndarray:
    """A function of the ids and the pooling, as a model is."""
    seed = [*request.token_ids[:50], request.pooling]
    return np.random.default_rng(seed).normal(0, 3, SIZE).astype("<f4")


def answer(request: EngineRequest) -> list[Step]:
    embedded = sampling_pb2.FINISH_REASON_EMBEDDED
    return [chunk(finish=embedded, embedding=vector_of(request).tobytes(), cached=len(request.token_ids) // 2)]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector.astype(np.float64))


@pytest.fixture(autouse=True)
def embedding_model(fronts: Fronts) -> None:
    fronts.catalogue.by_name["demo"] = msgspec.structs.replace(demo_model(), embedding_size=SIZE)
    fronts.dispatcher.script = answer


@pytest.fixture
async def headway(fronts: Fronts) -> AsyncIterator[AsyncHeadway]:
    async with AsyncHeadway(fronts.grpc_address, timeout=30) as headway:
        yield headway


def sent(fronts: Fronts) -> list[EngineRequest]:
    """What was dispatched, by input; forgets it."""
    found = sorted(fronts.dispatcher.requests, key=lambda request: request.sequence)
    fronts.dispatcher.requests = []
    return found


@pytest.mark.parametrize(
    "inputs", ["one", TEXTS, [5, 6, 7], [[5, 6], [7], [4095]]], ids=["text", "texts", "ids", "lists"]
)
async def test_openais_client_gets_what_ours_gets(
    fronts: Fronts, client: openai.AsyncOpenAI, headway: AsyncHeadway, inputs: Any
) -> None:
    plain = await client.embeddings.create(model="demo", input=inputs, encoding_format="float", user="somebody")
    requests = sent(fronts)
    packed = await client.embeddings.create(model="demo", input=inputs)  # which asks for base64 and unpacks it
    ours = await headway.embed(inputs)
    assert sent(fronts)[len(requests) :] and len(requests) == len(ours) == len(plain.data)
    expected = [unit(vector_of(request)) for request in requests]
    assert [item.index for item in plain.data] == list(range(len(requests)))
    np.testing.assert_allclose([item.embedding for item in plain.data], expected, rtol=1e-6)
    assert ours.vectors == [item.embedding for item in plain.data]
    np.testing.assert_array_equal(np.array(packed.data[0].embedding, "<f4"), np.array(ours.vectors[0], "<f4"))
    tokens = sum(len(request.token_ids) for request in requests)
    cached = sum(len(request.token_ids) // 2 for request in requests)
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens, plain.model) == (tokens, tokens, "demo")
    assert (ours.usage.prompt_tokens, ours.usage.cached_tokens, ours.usage.completion_tokens) == (tokens, cached, 0)
    assert ours.model_revision == "revision-of-demo" == requests[0].revision
    assert {request.max_new_tokens for request in requests} == {0}
    last = fronts.observer.ended_records[-1]
    assert (last.prompt_tokens, last.cached_tokens, last.finish_reason) == (tokens, cached, 6)


async def test_pooling_dimensions_length_and_salt(
    fronts: Fronts, client: openai.AsyncOpenAI, headway: AsyncHeadway
) -> None:
    extra = {"pooling": "mean", "normalize": False, "cache_salt": "s"}
    got = await client.embeddings.create(model="demo", input=[[1], [2]], dimensions=3, extra_body=extra)
    ours = await headway.embed([[1], [2]], pooling="mean", normalize=False, dimensions=3, cache_salt="s")
    cut = await headway.embed([[1], [2]], dimensions=3, cache_bypass=True, pooling="last")
    first, second, third, fourth, *by_last = sorted(sent(fronts), key=lambda one: (-one.pooling, one.sequence))
    assert {(one.pooling, one.cache_bypass, one.cache_salt) for one in (first, second, third, fourth)} == {
        (POOLING_MEAN, True, "s")
    }
    assert {(one.pooling, one.cache_bypass, one.cache_salt) for one in by_last} == {(POOLING_LAST, True, "")}
    assert (
        ours.vectors == [item.embedding for item in got.data] == [vector_of(one)[:3].tolist() for one in (first, third)]
    )
    np.testing.assert_allclose(cut.vectors, [unit(vector_of(one)[:3]) for one in by_last], rtol=1e-6)


async def test_a_list_longer_than_what_runs_at_once_keeps_its_order(fronts: Fronts, headway: AsyncHeadway) -> None:
    count, most, gate = 3 * embedding.CONCURRENCY + 1, 0, asyncio.Event()

    def script(request: EngineRequest) -> Iterable[Step]:
        nonlocal most
        most = max(most, len(fronts.dispatcher.live))
        if len(fronts.dispatcher.requests) == count:
            gate.set()
        return [gate, *answer(request)] if request.sequence < 5 else answer(request)

    fronts.dispatcher.script = script
    got = await headway.embed([[index % 4096, 7] for index in range(count)], normalize=False)
    assert got.vectors == [vector_of(request).tolist() for request in sent(fronts)]
    assert most == embedding.CONCURRENCY


BAD: dict[str, tuple[Any, dict[str, Any]]] = {
    "no inputs": ([], {}),
    "an empty text": (["a", ""], {}),
    "empty ids": ([[1], []], {}),
    "beyond the vocabulary": ([[1], [2, 4096]], {}),
    "longer than the context": ([[1], [7] * 257], {}),
    "text longer than the context": (["word " * 300], {}),
    "far longer": (["word " * 3_000], {}),
    "too many": (["x"] * (limits.MAX_EMBED_INPUTS + 1), {}),
    "no dimensions": (["x"], {"dimensions": 0}),
    "more dimensions than there are": (["x"], {"dimensions": SIZE + 1}),
    "nobody's model": (["x"], {"model": "nobody"}),
    "a long salt": (["x"], {"cache_salt": "s" * 257}),
    "too many tokens in all": ([[1] * 60] * 10, {}),
    "too many values in all": (["x"] * 90, {}),
    "pooling": (["x"], {"pooling": "max"}),
}


@pytest.mark.parametrize("name", BAD)
async def test_both_fronts_give_one_verdict(
    fronts: Fronts, http: httpx.AsyncClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_EMBED_TOKENS", 500)
    monkeypatch.setattr(limits, "MAX_EMBED_VALUES", 80 * SIZE)
    inputs, fields = BAD[name]
    if name == "too many":
        monkeypatch.setattr(limits, "MAX_EMBED_VALUES", 1 << 23)
    reply = await http.post("/v1/embeddings", json={"input": inputs, "model": "demo", **fields})
    told = reply.json()["error"]
    error = await refused(fronts, proto(inputs, fields))
    assert (reply.status_code, told["code"]) == (error.http_status, error.reason)
    path = error.field.replace("inputs", "input").replace(".token_ids.ids", "").replace(".text", "")
    assert told["param"] == path.replace("cache.salt", "cache_salt") != ""
    if name != "pooling":  # of which gRPC knows a number only
        assert told["message"].removeprefix(told["param"]) == error.message.removeprefix(error.field)
    assert not fronts.dispatcher.requests


def proto(inputs: Sequence[Any], fields: dict[str, Any]) -> pb.EmbedRequest:
    request = pb.EmbedRequest(model=fields.get("model", "demo"), dimensions=fields.get("dimensions"))
    request.cache.salt = fields.get("cache_salt", "")
    request.pooling = 7 if "pooling" in fields else 0  # type: ignore[assignment]
    for one in inputs:
        form = {"text": one} if isinstance(one, str) else {"token_ids": pb.TokenIds(ids=one)}
        request.inputs.append(pb.Prompt(**form))
    return request


async def refused(fronts: Fronts, request: pb.EmbedRequest) -> HeadwayError:
    from headway.client.errors import from_rpc

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fronts.stub.Embed(request)
    return from_rpc(caught.value, "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "dimension": 3}, "dimension"),
        ({"input": "x", "dimensions": "3"}, "dimensions"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [["a"]]}, "input[0][0]"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": None}, "input"),
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": [4096]}, "input[0]"),
        ({"input": "x", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ],
)
async def test_bodies_that_are_none(fronts: Fronts, http: httpx.AsyncClient, body: Any, field: str) -> None:
    reply = await http.post("/v1/embeddings", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field), reply.text
    assert not fronts.dispatcher.requests


async def test_an_input_without_a_form(fronts: Fronts) -> None:
    error = await refused(fronts, pb.EmbedRequest(inputs=[pb.Prompt(text="x"), pb.Prompt()]))
    assert isinstance(error, InvalidRequest) and error.field == "inputs[1]"


async def test_a_model_without_embeddings(fronts: Fronts, headway: AsyncHeadway) -> None:
    assert "embed" in (await headway.model()).features
    fronts.catalogue.by_name["demo"] = demo_model()
    assert "embed" not in (await headway.model()).features
    with pytest.raises(InvalidRequest, match="gives no embeddings"):
        await headway.embed("x")


def held(gate: asyncio.Event) -> Callable[[EngineRequest], list[Step]]:
    return lambda request: [gate, *answer(request)]


async def test_whoever_leaves_runs_out_of_time_or_is_aborted_keeps_nothing(
    fronts: Fronts, headway: AsyncHeadway, http: httpx.AsyncClient
) -> None:
    fronts.dispatcher.script = held(asyncio.Event())
    for ask in (
        lambda: headway.embed(["a", "b", "c"]),
        lambda: http.post("/v1/embeddings", json={"input": ["a", "b", "c"]}),
    ):
        leaves = asyncio.ensure_future(ask())
        await fronts.dispatcher.busy(3)
        leaves.cancel()
        await fronts.dispatcher.settled()
    with pytest.raises(DeadlineExceeded):
        await headway.embed(["a", "b"], timeout=0.3)
    await fronts.dispatcher.settled()
    aborted = asyncio.ensure_future(headway.embed(["a", "b"], request_id="mine"))
    await fronts.dispatcher.busy(2)
    with pytest.raises(HeadwayError, match="mine"):
        await headway.embed("other", request_id="mine")
    assert await headway.abort("mine") == ["mine"]
    with pytest.raises(Cancelled):
        await aborted
    errors = [record.error for record in fronts.observer.ended_records]
    timed_out = errors.pop(2)
    assert timed_out in ("DEADLINE_EXCEEDED", "CANCELLED"), "the client's clock and ours run to the same moment"
    assert errors == ["CANCELLED", "CANCELLED", "ALREADY_EXISTS", "CANCELLED"]


async def test_the_first_failure_ends_the_other_inputs(fronts: Fronts, headway: AsyncHeadway) -> None:
    gate = asyncio.Event()
    fronts.dispatcher.script = lambda request: (
        [Unavailable("gone", retry_after_s=60)] if request.sequence == 3 else [gate, *answer(request)]
    )
    with pytest.raises(Unavailable, match="gone"):
        await headway.embed(["a"] * 6)
    await fronts.dispatcher.settled()


async def test_queues_filled_by_the_request_itself(fronts: Fronts, headway: AsyncHeadway) -> None:
    """An input that finds no place beside its siblings waits for them; one that is alone is told so."""
    gate, refusals = asyncio.Event(), 0

    def script(request: EngineRequest) -> Iterable[Step]:
        nonlocal refusals
        if request.sequence == 1 and refusals < 2:
            refusals += 1
            if refusals == 2:
                gate.set()
            return [Overloaded("full", retry_after_s=1)]
        return [gate, *answer(request)]

    fronts.dispatcher.script = script
    assert len(await headway.embed(["a", "b", "c"])) == 3
    assert refusals == 2
    fronts.dispatcher.script = lambda request: [Overloaded("full", retry_after_s=1)]
    with pytest.raises(Overloaded):
        await headway.embed(["a", "b", "c"])


async def test_values_that_json_cannot_say(fronts: Fronts, http: httpx.AsyncClient) -> None:
    def script(request: EngineRequest) -> list[Step]:
        embedded = np.full(SIZE, np.nan, "<f4").tobytes() if request.sequence else bytes(4 * SIZE)
        return [chunk(finish=sampling_pb2.FINISH_REASON_EMBEDDED, embedding=embedded)]

    fronts.dispatcher.script = script
    zeros = await http.post("/v1/embeddings", json={"input": "x"})
    assert zeros.json()["data"][0]["embedding"] == [0.0] * SIZE
    reply = await http.post("/v1/embeddings", json={"input": ["x", "y"]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "INTERNAL")


async def test_others_get_their_turn_between_two_vectors_of_an_answer() -> None:
    """Also when the connection takes everything at once."""
    turns, ended = 0, asyncio.Event()
    found = embedding.Embedded(
        request_id="r", model="m", model_revision="v", vectors=[bytes(4 * SIZE)] * 50, prompt_tokens=50,
        cached_tokens=0, first_s=0.0, total_s=0.0, migrations=0, preemptions=0,
    )  # fmt: skip

    async def other() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            await asyncio.sleep(0)

    async def send(message: Any) -> None:
        if message.get("more_body") is None and message["type"] == "http.response.body":
            ended.set()

    beside = asyncio.ensure_future(other())
    await send_embeddings(send, found, False, [])
    await beside
    assert turns >= 50
