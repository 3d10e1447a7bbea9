"""What a request may ask beside its text: the `openai` client parses our answers, and engines are asked for it all."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import openai
import pytest

from headway.core.constraints import Grammar
from headway.core.errors import HeadwayError, InvalidRequest, Overloaded
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import sampling_pb2
from headway.router.fronts.inference_requests import from_generate
from headway.router.fronts.openai.requests import read_chat, read_completion
from headway.router.types import EngineRequest, TokenChunk
from headway.router.validation.fields import check_fields
from headway.tests.fronts.support.scripted_replicas import chunk, place, until
from headway.tests.fronts.support.serving import Fronts
from headway.tests.fronts.test_openai_front import TALK, events_of, ids_of

LENGTH = sampling_pb2.FINISH_REASON_LENGTH
CRAB = ids_of("🦀")
WORDS = ids_of("a b")


def with_logprobs(
    request: EngineRequest, ids: list[int], finish: sampling_pb2.FinishReason = LENGTH
) -> list[TokenChunk]:
    """A chunk a token, each with the log probabilities that were asked for: -0.5 its own, -1, -2... of ids 300 on."""

    def places(ids: list[int], top: int | None) -> dict[str, Any]:
        others = [(300 + rank, -1.0 - rank) for rank in range(top or 0)]
        return {} if top is None else [place((token_id, -0.5), *others) for token_id in ids]  # type: ignore[return-value]

    chunks = []
    for position, token_id in enumerate(ids):
        more: dict[str, Any] = {"logprobs": places([token_id], request.logprobs) or []}
        if position == 0:
            more["prompt_logprobs"] = places(request.token_ids[1:], request.prompt_logprobs) or []
        last = position == len(ids) - 1
        chunks.append(chunk(token_id, finish=finish if last else 0, **more))  # type: ignore[arg-type]
    return chunks


def answering(fronts: Fronts, ids: list[int]) -> None:
    fronts.dispatcher.script = lambda request: with_logprobs(request, ids)


def text_of(token_id: int) -> str:
    from headway.tests.fronts.test_openai_front import TOKENIZER

    text: str = TOKENIZER.decode([token_id])
    return text


async def test_chat_logprobs_whole_and_streamed(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    answering(fronts, [*WORDS, *CRAB])
    asked: Any = {"model": "demo", "messages": TALK, "logprobs": True, "top_logprobs": 2}
    whole = await client.chat.completions.create(**asked)
    assert whole.choices[0].logprobs is not None and whole.choices[0].logprobs.content is not None
    content = whole.choices[0].logprobs.content
    assert b"".join(bytes(one.bytes or ()) for one in content).decode() == whole.choices[0].message.content == "a b🦀"
    assert [one.logprob for one in content] == [-0.5] * len(content)
    assert [(top.token, top.logprob) for top in content[0].top_logprobs] == [(text_of(300), -1), (text_of(301), -2)]
    # A token that is no whole character goes by its bytes.
    assert (content[0].token, content[-1].token, content[-1].bytes) == ("a", "bytes:\\x80", [0x80])

    parts = [part async for part in await client.chat.completions.create(**asked, stream=True)]
    streamed = [one for part in parts if (found := part.choices[0].logprobs) for one in found.content or ()]
    assert [one.model_dump() for one in streamed] == [one.model_dump() for one in content]
    assert [request.logprobs for request in fronts.dispatcher.requests] == [2, 2]


async def test_chat_logprobs_without_alternatives(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    answering(fronts, WORDS)
    got = await client.chat.completions.create(model="demo", messages=TALK, logprobs=True)
    assert got.choices[0].logprobs is not None and got.choices[0].logprobs.content is not None
    assert [one.top_logprobs for one in got.choices[0].logprobs.content] == [[], []]
    assert fronts.dispatcher.requests[0].logprobs == 0


async def test_completion_logprobs_whole_and_streamed(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    answering(fronts, [*CRAB, *WORDS])
    asked: Any = {"model": "demo", "prompt": "def", "logprobs": 1}
    got = (await client.completions.create(**asked)).choices[0]
    logprobs = got.logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.text_offset is not None
    assert (got.text, logprobs.tokens[len(CRAB) :]) == ("🦀a b", ["a", " b"])
    assert logprobs.text_offset == [*[0] * len(CRAB), 1, 2]
    assert logprobs.token_logprobs == [-0.5] * (len(CRAB) + 2)
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[-1] == {" b": -0.5, text_of(300): -1.0}

    parts = [part async for part in await client.completions.create(**asked, stream=True)]
    pieces = [found for part in parts if (found := part.choices[0].logprobs)]
    assert [offset for piece in pieces for offset in piece.text_offset or ()] == logprobs.text_offset
    assert [token for piece in pieces for token in piece.tokens or ()] == logprobs.tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["x = 5", ids_of("x = 5")])
async def test_echo_scores_the_prompt(
    fronts: Fronts, client: openai.AsyncOpenAI, stream: bool, prompt: str | list[int]
) -> None:
    """As evaluation harnesses ask: the prompt's log probabilities, and one token or none after them."""
    answering(fronts, WORDS[:1])
    for most, output in ((1, ["a"]), (0, [])):
        asked: Any = {"model": "demo", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": most}
        if stream:
            choices = [part.choices[0] async for part in await client.completions.create(**asked, stream=True)]
        else:
            answer = await client.completions.create(**asked)
            choices = answer.choices
            assert answer.usage is not None and answer.usage.completion_tokens == most
        lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for choice in choices:
            for name, values in lists.items():
                values += getattr(choice.logprobs, name) if choice.logprobs else []
        assert "".join(choice.text for choice in choices) == "x = 5" + "".join(output) == "".join(lists["tokens"])
        assert lists["token_logprobs"] == [None, *[-0.5] * (len(lists["tokens"]) - 1)]
        assert lists["top_logprobs"][0] is None and lists["top_logprobs"][1][text_of(300)] == -1.0
        offsets = lists["text_offset"]
        assert all("x = 5a"[at:].startswith(token) for at, token in zip(offsets, lists["tokens"], strict=True))
        assert choices[-1].finish_reason == "length"


async def test_prompt_logprobs_as_vllm_gives_them(fronts: Fronts, http: httpx.AsyncClient) -> None:
    answering(fronts, WORDS)
    prompt = ids_of("x = 5")
    answer = (await http.post("/v1/completions", json={"prompt": prompt, "prompt_logprobs": 1})).json()
    expected: list[Any] = [None] + [
        {str(token): {"logprob": -0.5, "rank": None, "decoded_token": text_of(token)},
         "300": {"logprob": -1.0, "rank": 1, "decoded_token": text_of(300)}}
        for token in prompt[1:]
    ]  # fmt: skip
    assert answer["choices"][0]["prompt_logprobs"] == expected
    assert answer["choices"][0]["logprobs"] is None
    chat = (await http.post("/v1/chat/completions", json={"messages": TALK, "prompt_logprobs": 0})).json()
    assert len(chat["prompt_logprobs"]) == len(fronts.dispatcher.requests[-1].token_ids)
    streamed = await http.post("/v1/chat/completions", json={"messages": TALK, "prompt_logprobs": 0, "stream": True})
    assert [("prompt_logprobs" in event) for event in events_of(streamed.text)[:-1]] == [True, False, False, False]


async def test_no_probability_at_all_is_a_number_in_json(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    fronts.dispatcher.script = lambda request: [
        chunk(WORDS[0], finish=LENGTH, logprobs=[place((WORDS[0], -math.inf), (7, -math.inf))])
    ]
    got = await client.completions.create(model="demo", prompt="x", logprobs=1)
    assert got.choices[0].logprobs is not None and got.choices[0].logprobs.token_logprobs == [-9999.0]


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


async def test_what_an_engine_refuses_is_told_in_the_callers_words(fronts: Fronts, http: httpx.AsyncClient) -> None:
    error = InvalidRequest("grammar: has no token that could come", field="grammar")
    fronts.dispatcher.script = lambda request: [error]
    body = {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}
    answer = await http.post("/v1/completions", json=body)
    said = answer.json()["error"]
    assert (answer.status_code, said["param"]) == (400, "response_format.json_schema.schema")
    assert said["message"] == "response_format.json_schema.schema: has no token that could come"

    fronts.dispatcher.script = lambda request: [chunk(WORDS[0]), error]
    streamed = await http.post("/v1/completions", json={**body, "stream": True})
    first, last = events_of(streamed.text)
    assert first["choices"][0]["text"] == "a"
    assert last["error"]["param"] == "response_format.json_schema.schema"
    error.field = "token_ids"
    chat = await http.post("/v1/chat/completions", json={"messages": TALK})
    assert chat.json()["error"]["param"] == "messages"


async def test_a_deadline_by_http(fronts: Fronts, http: httpx.AsyncClient) -> None:
    fronts.dispatcher.script = lambda request: [chunk(WORDS[0]), asyncio.Event()]
    answer = await http.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-timeout": "0.05"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "DEADLINE_EXCEEDED")
    body = {"prompt": "x", "stream": True, "n": 2}
    events = events_of((await http.post("/v1/completions", json=body, headers={"x-request-timeout": "0.1"})).text)
    assert events[-1]["error"]["code"] == "DEADLINE_EXCEEDED"
    assert all(request.deadline is not None for request in fronts.dispatcher.requests)
    for wrong in ("0", "-1", "soon", "nan", "1e9"):
        answer = await http.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-timeout": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-request-timeout")


async def test_stop_strings_are_not_looked_for_in_the_least_tokens(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    words = ids_of(" one two three two three")
    fronts.dispatcher.script = lambda request: [chunk(*words, finish=LENGTH)]
    asked: Any = {"model": "demo", "prompt": "x", "stop": [" two"]}
    assert (await client.completions.create(**asked)).choices[0].text == " one"
    least = len(ids_of(" one two"))
    got = await client.completions.create(**asked, extra_body={"min_tokens": least})
    assert got.choices[0].text == " one two three"
    assert fronts.dispatcher.requests[-1].rules.min_new_tokens == least


SCHEMA = '{"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}'
FORMS: list[tuple[dict[str, Any] | str, Grammar]] = [
    ({"response_format": {"type": "json_object"}}, Grammar("json_object")),
    ('{"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": '
     + SCHEMA + "}}}", Grammar("json_schema", SCHEMA)),
    ('{"structured_outputs": {"json": ' + SCHEMA + "}}", Grammar("json_schema", SCHEMA)),
    ({"structured_outputs": {"json": SCHEMA}}, Grammar("json_schema", SCHEMA)),
    ({"structured_outputs": {"regex": "a+"}}, Grammar("regex", "a+")),
    ({"structured_outputs": {"choice": ["a", "b"]}}, Grammar("choice", choices=("a", "b"))),
    ({"structured_outputs": {"grammar": "root ::= [a]"}}, Grammar("ebnf", "root ::= [a]")),
    ({"structured_outputs": {"json_object": True, "disable_any_whitespace": False}}, Grammar("json_object")),
    ({"guided_json": {}}, Grammar("json_schema", "{}")),
    ({"guided_regex": "a"}, Grammar("regex", "a")),
    ({"guided_choice": ["a"]}, Grammar("choice", choices=("a",))),
    ({"guided_grammar": "root ::= [a]"}, Grammar("ebnf", "root ::= [a]")),
]  # fmt: skip


@pytest.mark.parametrize(("body", "grammar"), FORMS)
async def test_forms_of_output(body: dict[str, Any] | str, grammar: Grammar) -> None:
    import json

    raw = body if isinstance(body, str) else json.dumps(body)
    for read in (read_completion, read_chat):
        request, _ = await read(raw.encode(), "r")
        assert request.grammar == grammar
    neutral = '{"response_format": {"type": "text"}, "structured_outputs": {"json_object": false}, "guided_json": null}'
    assert (await read_chat(neutral.encode(), "r"))[0].grammar is None


JSON_SCHEMA: Any = {"name": "n", "schema": {"type": "object"}, "strict": True}
BAD_FORMS: list[tuple[dict[str, Any], str]] = [
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "structural_tag", "format": {}}}, "response_format.format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "text", "json_schema": JSON_SCHEMA}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "x": 1}}},
     "response_format.json_schema.x"),
    ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
    ({"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
    ({"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp"),
    ({"structured_outputs": {"json": "{nonsense"}}, "structured_outputs.json"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice[1]"),
    ({"guided_grammar": " "}, "guided_grammar"),
    ({"guided_json": [1]}, "guided_json"),
    ({"guided_json": {"title": "x" * 300_000}}, "guided_json"),
    ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    ({"guided_regex": "a", "min_tokens": 1}, "min_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field"), BAD_FORMS)
async def test_forms_that_cannot_be_are_refused_by_name(body: dict[str, Any], field: str) -> None:
    import json

    with pytest.raises(HeadwayError) as caught:
        check_fields((await read_completion(json.dumps({"prompt": "x", **body}).encode(), "r"))[0])
    assert caught.value.field == field and field in caught.value.message


@pytest.mark.parametrize(
    ("grammar", "field"),
    [
        ({"json_schema": "5"}, "constraints.grammar.json_schema"),
        ({"regex": ""}, "constraints.grammar.regex"),
        ({"choice": {"texts": ["a", ""]}}, "constraints.grammar.choice.texts[1]"),
        ({"ebnf": "x" * 300_000}, "constraints.grammar.ebnf"),
    ],
)
def test_forms_by_grpc_are_refused_by_name(grammar: Any, field: str) -> None:
    message = pb.GenerateRequest(prompt=pb.Prompt(text="x"), constraints={"grammar": grammar})
    with pytest.raises(InvalidRequest) as caught:
        check_fields(from_generate(message))
    assert caught.value.field == field


async def test_bad_words_are_spelled_at_the_start_and_after_a_space(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    await client.completions.create(model="demo", prompt="x", extra_body={"bad_words": ["return", " return"]})
    assert fronts.dispatcher.requests[0].rules.bad_words == (tuple(ids_of("return")), tuple(ids_of(" return")))
