"""Bad input on both fronts: the same verdict and reason, the caller's own field named, and a neighbour undisturbed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headway.core.errors import ContextTooLong, InvalidRequest, NotFound
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import sampling_pb2
from headway.router.validation import limits
from headway.tests.fronts.support.scripted_replicas import ASSETS, chunk, demo_model
from headway.tests.fronts.support.serving import Fronts

NEIGHBOUR = "neighbour"


@pytest.fixture(autouse=True)
async def neighbour(fronts: Fronts) -> AsyncIterator[None]:
    """A stream that runs while the bad request is refused, and must end whole."""
    gate = asyncio.Event()
    script = fronts.dispatcher.script

    def slow(request: Any) -> Any:
        if request.request_id != NEIGHBOUR:
            return script(request)
        return [chunk(100, 101), gate, chunk(102, finish=sampling_pb2.FINISH_REASON_LENGTH)]

    fronts.dispatcher.script = slow
    call = fronts.stub.Generate(pb.GenerateRequest(request_id=NEIGHBOUR, prompt=pb.Prompt(text="x")))
    running = asyncio.ensure_future(_all(call))
    await fronts.dispatcher.busy()
    yield
    gate.set()
    got = await running
    assert got[-1].usage.completion_tokens == 3
    assert [request.request_id for request in fronts.dispatcher.requests] == [NEIGHBOUR]


async def _all(call: Any) -> list[Any]:
    return [response async for response in call]


async def refusal(call: Any) -> tuple[str, str, str]:
    """Status code, ErrorInfo reason and field of a refused gRPC call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _all(call)
    status = rpc_status.from_call(cast(Any, caught.value))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    fields = [bad.field_violations[0].field for detail in status.details if detail.Unpack(bad)]
    assert any(detail.Unpack(info) for detail in status.details)
    assert fields == [] or bad.field_violations[0].description == status.message
    return caught.value.code().name, info.reason, fields[0] if fields else ""


def raw_call(fronts: Fronts, method: str, raw: bytes) -> Any:
    """A call with bytes that no generated class would send."""
    channel: Any = fronts.channel
    return channel.unary_stream(f"/headway.v1.InferenceService/{method}")(raw)


TEXT = {"prompt": pb.Prompt(text="x")}
LONG = "value = value + 1\n" * 200

# name: (verdict, gRPC fields, gRPC field named, HTTP fields, HTTP field named)
Case = tuple[type[InvalidRequest | NotFound], dict[str, Any], str, dict[str, Any], str]
CASES: dict[str, Case] = {
    "no prompt": (InvalidRequest, {}, "prompt", {}, "prompt"),
    "empty prompt": (InvalidRequest, {"prompt": pb.Prompt(text="")}, "prompt.text", {"prompt": ""}, "prompt"),
    "no ids": (
        InvalidRequest, {"prompt": pb.Prompt(token_ids=pb.TokenIds())}, "prompt.token_ids.ids",
        {"prompt": []}, "prompt",
    ),
    "id outside the vocabulary": (
        InvalidRequest, {"prompt": pb.Prompt(token_ids=pb.TokenIds(ids=[5, 4096]))}, "prompt.token_ids.ids[1]",
        {"prompt": [5, 4096]}, "prompt[1]",
    ),
    "prompt too long": (
        ContextTooLong, {"prompt": pb.Prompt(text=LONG)}, "prompt.text", {"prompt": LONG}, "prompt"
    ),
    "absurdly long prompt": (
        ContextTooLong, {"prompt": pb.Prompt(text=LONG * 1000)}, "prompt.text", {"prompt": LONG * 1000}, "prompt"
    ),
    "too many ids": (
        ContextTooLong, {"prompt": pb.Prompt(token_ids=pb.TokenIds(ids=[5] * 256))}, "prompt.token_ids.ids",
        {"prompt": [5] * 256}, "prompt",
    ),
    "unknown model": (NotFound, {**TEXT, "model": "nobody"}, "model", {"prompt": "x", "model": "nobody"}, "model"),
    "temperature -1": (
        InvalidRequest, {**TEXT, "sampling": {"temperature": -1}}, "sampling.temperature",
        {"prompt": "x", "temperature": -1}, "temperature",
    ),
    "top_p 0": (
        InvalidRequest, {**TEXT, "sampling": {"top_p": 0}}, "sampling.top_p", {"prompt": "x", "top_p": 0}, "top_p"
    ),
    "top_k too large": (
        InvalidRequest, {**TEXT, "sampling": {"top_k": 2**32 - 1}}, "sampling.top_k",
        {"prompt": "x", "top_k": 2**32 - 1}, "top_k",
    ),
    "infinite penalty": (
        InvalidRequest, {**TEXT, "sampling": {"presence_penalty": float("inf")}}, "sampling.presence_penalty",
        {"prompt": "x", "presence_penalty": 1e300}, "presence_penalty",
    ),
    "no new tokens": (
        InvalidRequest, {**TEXT, "stopping": {"max_new_tokens": 0}}, "stopping.max_new_tokens",
        {"prompt": "x", "max_tokens": 0}, "max_tokens",
    ),
    "more new tokens than fit": (
        InvalidRequest, {**TEXT, "stopping": {"max_new_tokens": 256}}, "stopping.max_new_tokens",
        {"prompt": "x", "max_tokens": 256}, "max_tokens",
    ),
    "1 MB stop list": (
        InvalidRequest, {**TEXT, "stopping": {"stop_strings": ["x" * 64] * 16_384}}, "stopping.stop_strings",
        {"prompt": "x", "stop": ["x" * 64] * 16_384}, "stop",
    ),
    "1 MB stop string": (
        InvalidRequest, {**TEXT, "stopping": {"stop_strings": ["a", "x" * 2**20]}}, "stopping.stop_strings[1]",
        {"prompt": "x", "stop": ["a", "x" * 2**20]}, "stop[1]",
    ),
    "empty stop string": (
        InvalidRequest, {**TEXT, "stopping": {"stop_strings": [""]}}, "stopping.stop_strings[0]",
        {"prompt": "x", "stop": ""}, "stop[0]",
    ),
    "too many stop ids": (
        InvalidRequest, {**TEXT, "stopping": {"stop_token_ids": range(65)}}, "stopping.stop_token_ids",
        {"prompt": "x", "stop_token_ids": list(range(65))}, "stop_token_ids",
    ),
    "stop id outside the vocabulary": (
        InvalidRequest, {**TEXT, "stopping": {"stop_token_ids": [4096]}}, "stopping.stop_token_ids[0]",
        {"prompt": "x", "stop_token_ids": [4096]}, "stop_token_ids[0]",
    ),
    "long salt": (
        InvalidRequest, {**TEXT, "cache": {"salt": "s" * 257}}, "cache.salt",
        {"prompt": "x", "cache_salt": "s" * 257}, "cache_salt",
    ),
    "more than any request may hold": (
        InvalidRequest, {"prompt": pb.Prompt(text="x" * (limits.MAX_REQUEST_BYTES + 1))}, "",
        {"prompt": "x" * (limits.MAX_REQUEST_BYTES + 1)}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_both_fronts_refuse_alike(fronts: Fronts, http: httpx.AsyncClient, name: str) -> None:
    verdict, message, grpc_field, body, http_field = CASES[name]
    got = await refusal(fronts.stub.Generate(pb.GenerateRequest(**message)))
    assert got == (verdict.code.name, verdict.reason, grpc_field)

    answer = await http.post("/v1/completions", json=body)
    too_large = name == "more than any request may hold"
    assert answer.status_code == (413 if too_large else verdict.http_status)
    error = answer.json()["error"]
    assert (error["type"], error["param"] or "", error["code"]) == ("invalid_request_error", http_field, verdict.reason)
    assert error["message"].startswith(http_field) or verdict is NotFound


USER = pb.ChatMessage(role="user", content="x")
# name: (gRPC chat request, gRPC field named, HTTP fields, HTTP field named)
CHATS: dict[str, tuple[pb.ChatRequest, str, dict[str, Any], str]] = {
    "no messages": (pb.ChatRequest(), "messages", {"messages": []}, "messages"),
    "too many messages": (
        pb.ChatRequest(messages=[USER] * 1025), "messages",
        {"messages": [{"role": "user", "content": "x"}] * 1025}, "messages",
    ),
    "no role": (
        pb.ChatRequest(messages=[USER, pb.ChatMessage(content="x")]), "messages[1].role",
        {"messages": [{"role": "user", "content": "x"}, {"content": "x"}]}, "messages[1].role",
    ),
    "unknown role": (
        pb.ChatRequest(messages=[pb.ChatMessage(role="robot", content="x")]), "messages[0].role",
        {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role",
    ),
    "temperature -1": (
        pb.ChatRequest(messages=[USER], generate={"sampling": {"temperature": -1}}), "generate.sampling.temperature",
        {"messages": [{"role": "user", "content": "x"}], "temperature": -1}, "temperature",
    ),
    "reserved template argument": (
        pb.ChatRequest(messages=[USER], template_args={"messages": 1}), "template_args.messages",
        {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"messages": 1}},
        "chat_template_kwargs.messages",
    ),
    "limit by its new name": (
        pb.ChatRequest(messages=[USER], generate={"stopping": {"max_new_tokens": 0}}),
        "generate.stopping.max_new_tokens",
        {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 0}, "max_completion_tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
async def test_both_fronts_refuse_conversations_alike(fronts: Fronts, http: httpx.AsyncClient, name: str) -> None:
    message, grpc_field, body, http_field = CHATS[name]
    assert await refusal(fronts.stub.Chat(message)) == ("INVALID_ARGUMENT", "INVALID_REQUEST", grpc_field)
    answer = await http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, http_field)


async def test_a_model_without_a_template_refuses_to_chat(fronts: Fronts, http: httpx.AsyncClient) -> None:
    fronts.catalogue.by_name["base"] = demo_model("base", {"tokenizer.json": ASSETS["tokenizer.json"]})
    request = pb.ChatRequest(generate={"model": "base"}, messages=[USER])
    assert await refusal(fronts.stub.Chat(request)) == ("INVALID_ARGUMENT", "INVALID_REQUEST", "messages")
    body = {"model": "base", "messages": [{"role": "user", "content": "x"}]}
    error = (await http.post("/v1/chat/completions", json=body)).json()["error"]
    assert (error["param"], error["code"]) == ("messages", "INVALID_REQUEST")
    assert "no chat template" in error["message"]


async def test_a_prompt_beside_messages_is_refused(fronts: Fronts) -> None:
    request = pb.ChatRequest(generate={"prompt": {"text": "x"}}, messages=[USER])
    assert (await refusal(fronts.stub.Chat(request)))[2] == "generate.prompt"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"prompt": "a\xff"}', "prompt"),
        (b'{"model": "\xff\xfe", "prompt": "x"}', "model"),
        (b'{"prompt": "x", "stop": ["a", "\xff"]}', "stop[1]"),
        (b'{"prompt": ["\xff"]}', "prompt[0]"),
        (b'{"prompt": "x", "mod\xffel": "y"}', ""),
        (b'{"prompt": "x\xff', ""),
    ],
)
async def test_http_names_the_field_that_is_not_utf8(http: httpx.AsyncClient, body: bytes, field: str) -> None:
    answer = await http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"] or "", error["code"]) == (400, field, "INVALID_REQUEST")
    assert "UTF-8" in error["message"]


@pytest.mark.parametrize(
    ("method", "message", "field"),
    [
        ("Generate", pb.GenerateRequest(prompt=pb.Prompt(text="BROKEN")), "prompt.text"),
        ("Generate", pb.GenerateRequest(model="BROKEN", prompt=pb.Prompt(text="x")), "model"),
        ("Generate", pb.GenerateRequest(stopping={"stop_strings": ["a", "BROKEN"]}), "stopping.stop_strings[1]"),
        ("Chat", pb.ChatRequest(messages=[USER, pb.ChatMessage(content="BROKEN")]), "messages[1].content"),
        ("Chat", pb.ChatRequest(generate={"cache": {"salt": "BROKEN"}}), "generate.cache.salt"),
    ],
)
async def test_grpc_names_the_field_that_is_not_utf8(fronts: Fronts, method: str, message: Any, field: str) -> None:
    raw = message.SerializeToString().replace(b"BROKEN", b"BRO\xffEN")
    assert await refusal(raw_call(fronts, method, raw)) == ("INVALID_ARGUMENT", "INVALID_REQUEST", field)


@pytest.mark.parametrize("raw", [b"\xff", b"\x1a\x05ab", b"\x0a", b"\x0b\x0b", b"\x22\x7f\x00"])
async def test_grpc_bytes_that_are_no_message_are_the_callers_mistake(fronts: Fronts, raw: bytes) -> None:
    assert await refusal(raw_call(fronts, "Generate", raw)) == ("INVALID_ARGUMENT", "INVALID_REQUEST", "")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'{"prompt": "x"} more', b'{"prompt": NaN}', b'{"prompt": "\\ud800"}', b"[" * 100_000,
     b'{"metadata": ' + b"[" * 100_000],
)  # fmt: skip
async def test_malformed_json_is_refused_as_such(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "INVALID_REQUEST")
    assert "malformed JSON" in error["message"] or "object" in error["message"]


MESSAGES = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("completions", {"prompt": "x", "max_tokens": "5"}, "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": 5.5}, "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": True}, "max_tokens"),
        ("completions", {"prompt": "x", "stop": [1]}, "stop[0]"),
        ("completions", {"prompt": [1, "x"]}, "prompt[1]"),
        ("completions", {"prompt": 5}, "prompt"),
        ("completions", {"prompt": ["a", "b"]}, "prompt"),
        ("completions", {"prompt": [[1], [2]]}, "prompt"),
        ("completions", {"prompt": [-1]}, "prompt[0]"),
        ("completions", {"prompt": "x", "temprature": 1}, "temprature"),
        ("completions", {"prompt": "x", "n": 0}, "n"),
        ("completions", {"prompt": "x", "n": True}, "n"),
        ("completions", {"prompt": "x", "best_of": 2}, "best_of"),
        ("completions", {"prompt": "x", "n": 2, "best_of": 3}, "best_of"),
        ("completions", {"prompt": "x", "echo": 1}, "echo"),
        ("completions", {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ("completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("completions", {"prompt": "x", "logprobs": True}, "logprobs"),
        ("completions", {"prompt": "x", "echo": True, "logprobs": -1}, "logprobs"),
        ("completions", {"prompt": "x", "logit_bias": {"five": 1}}, "logit_bias[five]"),
        ("completions", {"prompt": "x", "logit_bias": {"-5": 1}}, "logit_bias[-5]"),
        ("completions", {"prompt": "x", "logit_bias": {"5": "much"}}, "logit_bias[...]"),
        ("completions", {"prompt": "x", "min_tokens": 17}, "min_tokens"),
        ("completions", {"prompt": "x", "use_beam_search": True}, "use_beam_search"),
        ("completions", {"prompt": "x", "guided_decoding_backend": "outlines"}, "guided_decoding_backend"),
        ("completions", {"prompt": "x", "allowed_token_ids": []}, "allowed_token_ids"),
        ("completions", {"prompt": "x", "seed": -1}, "seed"),
        ("completions", {"prompt": "x", "seed": 2**64}, "seed"),
        ("completions", {"prompt": "x", "top_k": -1}, "top_k"),
        ("completions", {"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options"),
        ("completions", {"prompt": "x", "stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ("chat/completions", {"messages": MESSAGES, "logprobs": 2}, "logprobs"),
        ("chat/completions", {"messages": MESSAGES, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("chat/completions", {"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
        ("chat/completions", {"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
        ("chat/completions", {"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
        ("chat/completions", {"messages": MESSAGES, "response_format": {"type": "xml"}}, "response_format.type"),
        ("chat/completions", {"messages": MESSAGES, "audio": {"voice": "x"}}, "audio"),
        ("chat/completions", {"messages": MESSAGES, "modalities": ["audio"]}, "modalities"),
        ("chat/completions", {"messages": MESSAGES, "reasoning_effort": "high"}, "reasoning_effort"),
        ("chat/completions", {"messages": MESSAGES, "store": True}, "store"),
        ("chat/completions", {"messages": MESSAGES, "prompt": "x"}, "prompt"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0].name"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].type"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"image_url": {}}]}]},
         "messages[0].content[0].image_url"),
        ("chat/completions", {"messages": MESSAGES, "max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ],
)  # fmt: skip
async def test_what_http_does_not_offer_is_refused_by_name(
    http: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str
) -> None:
    answer = await http.post(f"/v1/{path}", content=json.dumps(fields), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "INVALID_REQUEST")
    assert param in error["message"]


async def test_wrong_paths_methods_and_types_answer_in_openais_shape(http: httpx.AsyncClient) -> None:
    for answer, status, code in (
        (await http.get("/v1/nothing"), 404, "NOT_FOUND"),
        (await http.get("/v1/completions"), 405, "INVALID_REQUEST"),
        (await http.post("/v1/models", json={}), 405, "INVALID_REQUEST"),
        (await http.post("/v1/completions", data={"prompt": "x"}), 415, "INVALID_REQUEST"),
        (await http.get("/v1/models/nobody"), 404, "NOT_FOUND"),
    ):
        assert answer.status_code == status
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
