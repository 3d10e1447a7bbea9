"""Several sequences of one request: each has its own end, and all of them one."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from headway.core.errors import Overloaded
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import sampling_pb2
from headway.router.types import EngineRequest
from headway.tests.fronts.support.scored import LENGTH, with_logprobs
from headway.tests.fronts.support.scripted_replicas import chunk, until
from headway.tests.fronts.support.serving import Fronts
from headway.tests.fronts.test_openai_front import TALK, ids_of, text_of

WORDS = ids_of("a b")


def several(request: EngineRequest) -> list[Any]:
    """Sequence i says so many words."""
    words = ids_of(" one two three four")[: request.sequence + 1]
    return with_logprobs(request, words, sampling_pb2.FINISH_REASON_EOS if request.sequence == 1 else LENGTH)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
async def test_several_sequences(fronts: Fronts, client: openai.AsyncOpenAI, chat: bool, stream: bool) -> None:
    fronts.dispatcher.script = several
    asked: Any = {"model": "demo", "n": 3, "seed": 5, "stream": stream}
    asked |= {"messages": TALK} if chat else {"prompt": "x"}
    if stream:
        asked["stream_options"] = {"include_usage": True}
    endpoint: Any = client.chat.completions if chat else client.completions
    texts, reasons, usage = ["", "", ""], ["", "", ""], None
    answer = await endpoint.create(**asked)
    for part in [part async for part in answer] if stream else [answer]:
        usage = part.usage or usage
        for choice in part.choices:
            said = choice.text if not chat else (choice.delta if stream else choice.message).content
            texts[choice.index] += said or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    words = ids_of(" one two three four")
    assert texts == ["".join(map(text_of, words[: number + 1])) for number in range(3)]
    assert reasons == ["length", "stop", "length"]
    requests = fronts.dispatcher.requests
    assert [request.sequence for request in requests] == [0, 1, 2]
    assert len({(request.request_id, request.sampling.seed) for request in requests}) == 1
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(requests[0].token_ids), 1 + 2 + 3)
    record = fronts.observer.ended_records[0]
    assert (record.sequences, record.completion_tokens, fronts.observer.calls.count("first_token")) == (3, 6, 1)


async def test_several_sequences_by_grpc(fronts: Fronts) -> None:
    fronts.dispatcher.script = several
    request = pb.GenerateRequest(prompt=pb.Prompt(text="x"), n=3, output={"token_ids": True, "logprobs": 1})
    ids: list[list[int]] = [[], [], []]
    kinds: list[str | None] = []
    offsets: list[list[int]] = [[], [], []]
    async for response in fronts.stub.Generate(request):
        kinds.append(response.WhichOneof("event"))
        if kinds[-1] == "delta":
            delta = response.delta
            ids[delta.index] += delta.token_ids
            offsets[delta.index].append(delta.offset)
            assert [entry.token.token_id for entry in delta.logprobs] == list(delta.token_ids)
            assert delta.logprobs[0].top[0].text == text_of(300).encode()
    words = ids_of(" one two three four")
    assert ids == [words[:1], words[:2], words[:3]]
    assert offsets == [[0], [0, 1], [0, 1, 2]]
    assert (kinds[0], kinds[-1], kinds.count("finished")) == ("started", "usage", 3)


async def test_a_stop_string_ends_its_own_sequence(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    go_on = asyncio.Event()

    def script(request: EngineRequest) -> list[Any]:
        words = ids_of(" one two three four") if request.sequence == 1 else ids_of(" five six")
        rest = [go_on, *(chunk(word) for word in words[1:]), chunk(finish=LENGTH)]
        return [chunk(words[0]), *rest]

    fronts.dispatcher.script = script
    asked: Any = {"model": "demo", "prompt": "x", "n": 3, "stop": [" two"], "stream": True}
    stream = await client.completions.create(**asked)
    first = await anext(stream)
    assert first.choices[0].text
    await until(lambda: len(fronts.dispatcher.live) == 3)
    go_on.set()
    reasons: dict[int, Any] = {}
    async for part in stream:
        for choice in part.choices:
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert reasons == {0: "length", 1: "stop", 2: "length"}
    assert len(fronts.dispatcher.closed_early) == 1


async def test_the_end_of_one_is_the_end_of_all(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    """A failure of one sequence, an abort, and a client that leaves."""
    hang = asyncio.Event()
    request = pb.GenerateRequest(request_id="all", prompt=pb.Prompt(text="x"), n=3)

    def failing(request: EngineRequest) -> list[Any]:
        return [chunk(WORDS[0]), Overloaded("full", retry_after_s=1) if request.sequence == 2 else hang]

    fronts.dispatcher.script = failing
    with pytest.raises(openai.RateLimitError):
        await client.completions.create(model="demo", prompt="x", n=3)
    await fronts.dispatcher.settled()

    fronts.dispatcher.script = lambda request: [chunk(WORDS[0]), hang]
    call = fronts.stub.Generate(request)
    running = asyncio.ensure_future(_all(call))
    await fronts.dispatcher.busy(3)
    await fronts.stub.Abort(pb.AbortRequest(request_ids=["all"]))
    reasons = [one.finished.reason for one in await running if one.HasField("finished")]
    assert reasons == [sampling_pb2.FINISH_REASON_ABORTED] * 3

    call = fronts.stub.Generate(request)
    running = asyncio.ensure_future(_all(call))
    await fronts.dispatcher.busy(3)
    with pytest.raises(openai.ConflictError):
        await client.completions.create(model="demo", prompt="x", extra_headers={"x-request-id": "all"})
    running.cancel()
    await fronts.dispatcher.settled()


async def test_an_abort_before_the_first_token_ends_all_sequences(fronts: Fronts) -> None:
    fronts.dispatcher.script = lambda request: [asyncio.Event()]
    call = fronts.stub.Generate(pb.GenerateRequest(request_id="all", prompt=pb.Prompt(text="x"), n=3))
    running = asyncio.ensure_future(_all(call))
    await fronts.dispatcher.busy()
    await fronts.stub.Abort(pb.AbortRequest(request_ids=["all"]))
    ends = [one.finished for one in await running if one.HasField("finished")]
    assert [(end.index, end.reason) for end in ends] == [
        (number, sampling_pb2.FINISH_REASON_ABORTED) for number in range(3)
    ]
    assert len(fronts.dispatcher.requests) == 1


async def _all(call: Any) -> list[Any]:
    return [response async for response in call]
