"""The HTTP front through the `openai` client: what its callers see, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from tokenizers import Tokenizer

from headway.core.errors import Overloaded, Unavailable
from headway.proto.headway.v1 import sampling_pb2
from headway.tests.fronts.support.scripted_replicas import ASSETS, chunk, one_by_one
from headway.tests.fronts.support.serving import Fronts

TOKENIZER = Tokenizer.from_buffer(ASSETS["tokenizer.json"])
TALK: Any = [{"role": "user", "content": "hello"}]
TEXT = "def f(x):\n    return '🦀'\n"


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


def text_of(token_id: int) -> str:
    text: str = TOKENIZER.decode([token_id])
    return text


def answering(fronts: Fronts, text: str = TEXT, finish: sampling_pb2.FinishReason | None = None) -> list[int]:
    """Makes the replicas answer `text`; returns its ids."""
    ids = ids_of(text)
    reason = sampling_pb2.FINISH_REASON_EOS if finish is None else finish
    fronts.dispatcher.script = lambda request: [chunk(ids[0], cached=4), *one_by_one(ids[1:], reason)]
    return ids


def events_of(body: str) -> list[Any]:
    """The server-sent events of a body; [DONE] as it is."""
    lines = [block.removeprefix("data: ") for block in body.split("\n\n") if block]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_chat_whole(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    ids = answering(fronts)
    got = await client.chat.completions.create(model="demo", messages=TALK, max_completion_tokens=50)
    assert got.object == "chat.completion"
    assert got.choices[0].message.content == TEXT
    assert got.choices[0].message.role == "assistant"
    assert got.choices[0].finish_reason == "stop"
    assert got.usage is not None
    assert got.usage.prompt_tokens_details is not None
    prompt = len(fronts.dispatcher.requests[0].token_ids)
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (prompt, len(ids))
    assert (got.usage.total_tokens, got.usage.prompt_tokens_details.cached_tokens) == (prompt + len(ids), 4)


async def test_chat_streamed(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    ids = answering(fronts, finish=sampling_pb2.FINISH_REASON_LENGTH)
    stream = await client.chat.completions.create(
        model="demo", messages=TALK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [part async for part in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in chunks[:-1]) == TEXT
    assert [part.choices[0].finish_reason for part in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert all(part.usage is None for part in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(ids)
    assert {part.id for part in chunks} == {"chatcmpl-" + fronts.dispatcher.requests[0].request_id}
    assert len(chunks) > 10


async def test_the_stream_on_the_wire(fronts: Fronts, http: httpx.AsyncClient) -> None:
    answering(fronts, "a b")
    answer = await http.post("/v1/chat/completions", json={"messages": TALK, "stream": True, "user": "u"})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = events_of(answer.text)
    assert [event if event == "[DONE]" else event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""}, {"content": "a"}, {"content": " b"}, {}, "[DONE]",
    ]  # fmt: skip
    assert all(set(event) == {"id", "object", "created", "model", "choices"} for event in events[:-1])
    assert events[-2]["choices"][0] == {
        "index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": None,
    }  # fmt: skip


async def test_completions_whole_and_streamed(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    answering(fronts)
    whole = await client.completions.create(model="demo", prompt="def f(", max_tokens=40)
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == ("text_completion", TEXT, "stop")
    stream = await client.completions.create(model="demo", prompt="def f(", max_tokens=40, stream=True)
    parts = [part async for part in stream]
    assert "".join(part.choices[0].text for part in parts) == TEXT
    assert parts[-1].choices[0].finish_reason == "stop"
    assert [request.token_ids for request in fronts.dispatcher.requests] == [ids_of("def f(")] * 2


@pytest.mark.parametrize("prompt", ["def f(", ["def f("], ids_of("def f("), [ids_of("def f(")]])
async def test_a_prompt_may_be_text_ids_or_a_list_of_one(
    fronts: Fronts, client: openai.AsyncOpenAI, prompt: Any
) -> None:
    await client.completions.create(model="demo", prompt=prompt, max_tokens=1)
    assert fronts.dispatcher.requests[0].token_ids == ids_of("def f(")


async def test_completions_without_a_limit_make_sixteen_tokens_or_what_fits(
    fronts: Fronts, client: openai.AsyncOpenAI
) -> None:
    for prompt, expected in (([100], 16), ([100] * 250, 6)):
        got = await client.completions.create(model="demo", prompt=prompt)
        assert got.usage is not None
        assert got.usage.completion_tokens == expected
        assert got.choices[0].finish_reason == "length"


async def test_vllms_fields(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    output = answering(fronts, "one two")
    extra = {
        "ignore_eos": True, "return_token_ids": True, "top_k": 5, "min_p": 0.25, "repetition_penalty": 1.5,
        "stop_token_ids": [7, 9], "cache_salt": "salt", "skip_special_tokens": False,
    }  # fmt: skip
    got: Any = await client.completions.create(model="demo", prompt=[100, 101], seed=3, extra_body=extra)
    assert got.choices[0].token_ids == output
    assert got.choices[0].prompt_token_ids == [100, 101]
    request = fronts.dispatcher.requests[0]
    assert request.eos_token_ids == ()
    assert request.stop_token_ids == (7, 9)
    assert request.cache_salt == "salt"
    sampling = request.sampling
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty, sampling.seed) == (5, 0.25, 1.5, 3)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_streamed_ids_and_usage_in_every_chunk(fronts: Fronts, http: httpx.AsyncClient, path: str) -> None:
    output = answering(fronts)
    answer = await http.post(f"/v1/{path}", json={
        **({"prompt": [100, 101]} if path == "completions" else {"messages": TALK}),
        "max_tokens": 40, "stream": True, "return_token_ids": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    })  # fmt: skip
    events = events_of(answer.text)[:-1]
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert [i for choice in choices for i in choice.get("token_ids", ())] == output
    first = choices[0] if path == "completions" else events[0]
    assert first["prompt_token_ids"] == fronts.dispatcher.requests[0].token_ids
    counts = [event["usage"]["completion_tokens"] for event in events if "usage" in event]
    assert counts == sorted(counts)
    assert counts[-1] == len(output)
    assert len(counts) >= len(output)


async def test_stop_strings_and_why_it_stopped(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    answering(fronts, "one two three four")
    got: Any = await client.completions.create(model="demo", prompt="x", stop=[" three"])
    assert (got.choices[0].text, got.choices[0].stop_reason) == ("one two", " three")
    got = await client.completions.create(
        model="demo", prompt="x", stop=" three", extra_body={"include_stop_str_in_output": True}
    )
    assert got.choices[0].text == "one two three"
    fronts.dispatcher.script = lambda request: [
        chunk(*ids_of("x"), 7, finish=sampling_pb2.FINISH_REASON_STOP, stop_id=7)
    ]  # fmt: skip
    got = await client.completions.create(model="demo", prompt="x", extra_body={"stop_token_ids": [7]})
    assert (got.choices[0].text, got.choices[0].stop_reason) == ("x", 7)


async def test_content_may_come_in_text_parts(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    parts: Any = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": parts}],
        max_tokens=1,
        extra_body={"chat_template_kwargs": {}},
    )
    text = TOKENIZER.decode(fronts.dispatcher.requests[0].token_ids, skip_special_tokens=False)
    assert text == "<|user|>\none\ntwo<|end|>\n<|assistant|>\n"


async def test_an_answer_can_be_sent_back_as_history(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(model="demo", messages=TALK, max_tokens=2)
    history: Any = [*TALK, first.choices[0].message.model_dump(), *TALK]
    assert (await client.chat.completions.create(model="demo", messages=history, max_tokens=2)).choices


async def test_models(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["demo"]
    model: Any = await client.models.retrieve("demo")
    assert (model.id, model.object, model.max_model_len) == ("demo", "model", 256)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("org/nobody")


async def test_the_request_id_goes_in_and_out(fronts: Fronts, http: httpx.AsyncClient) -> None:
    body = {"prompt": "x", "max_tokens": 1}
    answer = await http.post("/v1/completions", json=body, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["id"] == "cmpl-mine-1"
    assert fronts.dispatcher.requests[0].request_id == "mine-1"
    refused = await http.post("/v1/completions", json={"prompt": ""}, headers={"x-request-id": "mine-2"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (400, "mine-2")
    for bad in ("a" * 129, "caf\xe9"):
        answer = await http.post("/v1/completions", json=body, headers=[(b"x-request-id", bad.encode("latin-1"))])
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-request-id")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_request_on_the_replica(fronts: Fronts, stream: bool) -> None:
    never = asyncio.Event()
    fronts.dispatcher.script = lambda request: [chunk(100), never]
    async with httpx.AsyncClient(base_url=fronts.url, trust_env=False) as leaver:
        post = asyncio.ensure_future(leaver.post("/v1/completions", json={"prompt": "x", "stream": stream}))
        await fronts.dispatcher.busy()
        post.cancel()
    await fronts.dispatcher.settled()
    assert len(fronts.dispatcher.closed_early) == 1
    assert fronts.observer.ended_records[-1].error == "CANCELLED"


async def test_a_client_that_leaves_in_a_flood_ends_its_request(fronts: Fronts) -> None:
    fronts.dispatcher.script = lambda request: (chunk(100 + index % 1000) for index in range(10_000_000))
    async with (
        httpx.AsyncClient(base_url=fronts.url, trust_env=False) as leaver,
        leaver.stream("POST", "/v1/completions", json={"prompt": "x", "stream": True}) as answer,
    ):
        async for _ in answer.aiter_bytes():
            break
    await fronts.dispatcher.settled()
    assert len(fronts.dispatcher.closed_early) == 1


async def test_a_failure_before_the_first_token_has_its_status(fronts: Fronts, http: httpx.AsyncClient) -> None:
    for error, status, kind in (
        (Overloaded("queues are full", retry_after_s=1.2), 429, "rate_limit_error"),
        (Unavailable("no replica"), 503, "server_error"),
    ):
        fronts.dispatcher.script = lambda request, error=error: [error]  # type: ignore[misc]
        for stream in (False, True):
            answer = await http.post("/v1/completions", json={"prompt": "x", "stream": stream})
            assert answer.status_code == status
            assert answer.headers["retry-after"] == str(2 if status == 429 else 1)
            assert answer.json() == {
                "error": {"message": error.message, "type": kind, "param": None, "code": error.reason}
            }


async def test_a_failure_after_the_first_token_is_the_streams_last_event(
    fronts: Fronts, http: httpx.AsyncClient, client: openai.AsyncOpenAI
) -> None:
    fronts.dispatcher.script = lambda request: [chunk(100), Unavailable("the replica is gone")]
    answer = await http.post("/v1/completions", json={"prompt": "x", "stream": True})
    events = events_of(answer.text)
    assert events[-1] == {
        "error": {"message": "the replica is gone", "type": "server_error", "param": None, "code": "UNAVAILABLE"}
    }
    with pytest.raises(openai.APIError, match="the replica is gone"):
        async for _ in await client.completions.create(model="demo", prompt="x", stream=True):
            pass
    whole = await http.post("/v1/completions", json={"prompt": "x"})
    assert whole.status_code == 503


async def test_our_own_faults_say_only_an_id(fronts: Fronts, http: httpx.AsyncClient) -> None:
    def broken(request: object) -> Any:
        raise RuntimeError("secret path /etc")

    fronts.dispatcher.script = broken
    answer = await http.post("/v1/completions", json={"prompt": "x"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["code"] == "INTERNAL"


async def test_many_streams_at_once_do_not_mix(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    def own(request: Any) -> Any:
        return one_by_one([request.token_ids[0]] * 20, sampling_pb2.FINISH_REASON_LENGTH)

    fronts.dispatcher.script = own

    async def one(token_id: int) -> None:
        stream = await client.completions.create(model="demo", prompt=[token_id], max_tokens=20, stream=True)
        text = "".join([part.choices[0].text async for part in stream])
        assert text == TOKENIZER.decode([token_id] * 20)

    await asyncio.gather(*(one(300 + index) for index in range(64)))
