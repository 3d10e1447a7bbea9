"""The gRPC front: the stream's order, text and ids, stop strings, cancel, deadline, abort, and the unary calls."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import msgspec
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from tokenizers import Tokenizer

from headway.core.errors import Overloaded, Unavailable
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import sampling_pb2
from headway.router import handler
from headway.router.text import model
from headway.tests.fronts.support.scripted_replicas import ASSETS, EOS, chunk, demo_model, one_by_one
from headway.tests.fronts.support.serving import Fronts

TOKENIZER = Tokenizer.from_buffer(ASSETS["tokenizer.json"])


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


def generate(text: str = "def f(", **fields: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=pb.Prompt(text=text), **fields)  # type: ignore[arg-type]


async def responses(fronts: Fronts, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
    return [response async for response in fronts.stub.Generate(request)]


async def test_the_stream_tells_start_deltas_end_and_usage(fronts: Fronts) -> None:
    output = ids_of("self, name: str) -> None:\n    pass\n")
    fronts.dispatcher.script = lambda request: [
        chunk(*output[:2], cached=3),
        *one_by_one(output[2:], sampling_pb2.FINISH_REASON_LENGTH),
    ]
    got = await responses(fronts, generate(request_id="r-1", sampling={"seed": 7}, output={"token_ids": True}))
    assert {response.request_id for response in got} == {"r-1"}
    assert [r.WhichOneof("event") for r in got] == ["started", *["delta"] * (len(output) - 1), "finished", "usage"]
    started, *deltas, finished, usage = got
    assert started.started == pb.Started(
        model="demo", model_revision="revision-of-demo", prompt_tokens=len(ids_of("def f(")), cached_tokens=3, seed=7,
        replica_id="replica-1",
    )  # fmt: skip
    assert "".join(delta.delta.text for delta in deltas) == "self, name: str) -> None:\n    pass\n"
    assert [i for delta in deltas for i in delta.delta.token_ids] == output
    assert [delta.delta.offset for delta in deltas] == [0, *range(2, len(output))]
    assert finished.finished.reason == sampling_pb2.FINISH_REASON_LENGTH
    assert (usage.usage.prompt_tokens, usage.usage.cached_tokens) == (started.started.prompt_tokens, 3)
    assert usage.usage.completion_tokens == len(output)
    assert 0 < usage.usage.timing.time_to_first_token.ToNanoseconds() <= usage.usage.timing.total.ToNanoseconds()


async def test_defaults_are_the_models_and_set_values_win_even_zero(fronts: Fronts) -> None:
    await responses(fronts, generate(stopping={"max_new_tokens": 2}))
    await responses(fronts, generate(sampling={"temperature": 0}, stopping={"max_new_tokens": 1, "ignore_eos": True}))
    first, second = fronts.dispatcher.requests
    assert (first.sampling.temperature, first.sampling.top_p, first.eos_token_ids) == (0.5, 0.875, (EOS,))
    assert (second.sampling.temperature, second.sampling.top_p, second.eos_token_ids) == (0.0, 0.875, ())
    assert first.sampling.seed != second.sampling.seed
    assert first.request_id != second.request_id


async def test_without_a_limit_the_context_is_the_limit(fronts: Fronts) -> None:
    got = await responses(fronts, generate())
    prompt = len(ids_of("def f("))
    assert fronts.dispatcher.requests[0].max_new_tokens == 256 - prompt
    assert got[-1].usage.completion_tokens == 256 - prompt


async def test_a_stop_string_over_two_tokens_ends_the_request_on_its_replica(fronts: Fronts) -> None:
    ids = [ids_of("return")[0], *ids_of(" xyz"), *ids_of("\nclass"), *ids_of(" more text")]
    text = TOKENIZER.decode(ids)
    stop = "yz\ncl"
    never = asyncio.Event()
    fronts.dispatcher.script = lambda request: [*(chunk(token_id) for token_id in ids), never]
    for include in (False, True):
        stopping = pb.Stopping(stop_strings=["never seen", stop], include_stop_string=include)
        got = await responses(fronts, generate(stopping=stopping))
        shown = "".join(response.delta.text for response in got)
        assert shown == text[: text.index(stop) + (len(stop) if include else 0)]
        assert got[-2].finished == pb.Finished(reason=sampling_pb2.FINISH_REASON_STOP, stop_string=stop)
        # Output ends with the token that completes the match.
        used = got[-1].usage.completion_tokens
        assert stop in TOKENIZER.decode(ids[:used])
        assert stop not in TOKENIZER.decode(ids[: used - 1])
    assert len(fronts.dispatcher.closed_early) == 2


async def test_a_stop_string_inside_one_chunk_cuts_text_and_ids(fronts: Fronts) -> None:
    ids = ids_of("one two three four")
    fronts.dispatcher.script = lambda request: [chunk(*ids, finish=sampling_pb2.FINISH_REASON_LENGTH)]
    got = await responses(fronts, generate(stopping={"stop_strings": [" three"]}, output={"token_ids": True}))
    used = got[-1].usage.completion_tokens
    assert got[1].delta.text == "one two"
    assert list(got[1].delta.token_ids) == ids[:used]
    assert used < len(ids)


async def test_text_held_for_a_stop_string_that_does_not_come_is_given_at_the_end(fronts: Fronts) -> None:
    ids = ids_of("a = <en")
    fronts.dispatcher.script = lambda request: one_by_one(ids, sampling_pb2.FINISH_REASON_LENGTH)
    got = await responses(fronts, generate(stopping={"stop_strings": ["<end>"]}))
    assert "".join(response.delta.text for response in got) == "a = <en"
    assert got[-2].finished.reason == sampling_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize("include", [False, True])
async def test_the_token_that_ended_it_is_counted_and_shown_only_when_asked(fronts: Fronts, include: bool) -> None:
    stop_id = ids_of(" pass")[0]
    fronts.dispatcher.script = lambda request: [
        chunk(*ids_of("x"), stop_id, finish=sampling_pb2.FINISH_REASON_STOP, stop_id=stop_id)
    ]
    stopping = pb.Stopping(stop_token_ids=[stop_id], include_stop_string=include)
    got = await responses(fronts, generate(stopping=stopping, output={"token_ids": True}))
    assert fronts.dispatcher.requests[0].stop_token_ids == (stop_id,)
    assert got[1].delta.text == ("x" + TOKENIZER.decode([stop_id]) if include else "x")
    assert list(got[1].delta.token_ids) == [*ids_of("x"), stop_id]
    assert got[-2].finished == pb.Finished(reason=sampling_pb2.FINISH_REASON_STOP, stop_token_id=stop_id)
    assert got[-1].usage.completion_tokens == len(ids_of("x")) + 1


async def test_special_tokens_are_shown_when_asked(fronts: Fronts) -> None:
    fronts.dispatcher.script = lambda request: [chunk(1, *ids_of("x"), finish=sampling_pb2.FINISH_REASON_LENGTH)]
    hidden = await responses(fronts, generate())
    shown = await responses(fronts, generate(output=pb.Output(skip_special_tokens=False)))
    assert (hidden[1].delta.text, shown[1].delta.text) == ("x", "<|system|>x")


async def test_only_ids(fronts: Fronts) -> None:
    fronts.dispatcher.script = lambda request: one_by_one(ids_of("x y"), sampling_pb2.FINISH_REASON_LENGTH)
    got = await responses(fronts, generate(output=pb.Output(text=False, token_ids=True)))
    assert all(response.delta.text == "" for response in got)
    assert [i for response in got for i in response.delta.token_ids] == ids_of("x y")


async def test_chat_applies_the_template(fronts: Fronts) -> None:
    request = pb.ChatRequest(
        generate=pb.GenerateRequest(stopping={"max_new_tokens": 1}),
        messages=[pb.ChatMessage(role="user", content="hello")],
    )
    got = [response.generate async for response in fronts.stub.Chat(request)]
    assert [r.WhichOneof("event") for r in got] == ["started", "delta", "finished", "usage"]
    assert TOKENIZER.decode(fronts.dispatcher.requests[0].token_ids, skip_special_tokens=False) == (
        "<|user|>\nhello<|end|>\n<|assistant|>\n"
    )


async def test_a_cancelled_call_is_closed_on_its_replica(fronts: Fronts) -> None:
    never = asyncio.Event()
    fronts.dispatcher.script = lambda request: [chunk(100), never]
    call = fronts.stub.Generate(generate(request_id="gone"))
    async for _ in call:
        break
    call.cancel()
    await fronts.dispatcher.settled()
    assert fronts.dispatcher.closed_early == ["gone"]
    assert fronts.observer.ended_records[-1].error == "CANCELLED"


async def test_a_cancelled_call_is_closed_in_the_middle_of_a_flood(fronts: Fronts) -> None:
    fronts.dispatcher.script = lambda request: (chunk(100 + index % 1000) for index in range(10_000_000))
    call = fronts.stub.Generate(generate(request_id="flood"))
    seen = 0
    async for _ in call:
        seen += 1
        if seen == 50:
            break
    call.cancel()
    await fronts.dispatcher.settled()
    assert fronts.dispatcher.closed_early == ["flood"]


async def test_a_passed_deadline_ends_the_request(fronts: Fronts) -> None:
    never = asyncio.Event()
    fronts.dispatcher.script = lambda request: [chunk(100), never]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in fronts.stub.Generate(generate(), timeout=0.2):
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await fronts.dispatcher.settled()


async def test_abort_ends_a_live_request_and_tells_which(fronts: Fronts) -> None:
    never = asyncio.Event()
    fronts.dispatcher.script = lambda request: [chunk(100, 101), never]
    running = asyncio.ensure_future(responses(fronts, generate(request_id="live")))
    await fronts.dispatcher.busy()
    answer = await fronts.stub.Abort(pb.AbortRequest(request_ids=["live", "unknown"]))
    assert list(answer.aborted_request_ids) == ["live"]
    got = await running
    assert got[-2].finished.reason == sampling_pb2.FINISH_REASON_ABORTED


async def test_a_second_live_request_with_the_same_id_is_refused(fronts: Fronts) -> None:
    gate = asyncio.Event()
    fronts.dispatcher.script = lambda request: [
        chunk(100), gate, chunk(101, finish=sampling_pb2.FINISH_REASON_LENGTH)
    ]  # fmt: skip
    first = asyncio.ensure_future(responses(fronts, generate(request_id="same")))
    await fronts.dispatcher.busy()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await responses(fronts, generate(request_id="same"))
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    gate.set()
    assert (await first)[-1].usage.completion_tokens == 2


@pytest.mark.parametrize("after_tokens", [False, True])
async def test_failures_are_statuses_with_details(fronts: Fronts, after_tokens: bool) -> None:
    for error, code in (
        (Overloaded("queues are full", retry_after_s=1.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Unavailable("no replica", retry_after_s=1.5), grpc.StatusCode.UNAVAILABLE),
    ):
        fronts.dispatcher.script = lambda request, error=error: [*([chunk(100)] if after_tokens else []), error]  # type: ignore[misc]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await responses(fronts, generate())
        assert caught.value.code() == code
        status = rpc_status.from_call(cast(Any, caught.value))
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToMilliseconds() == 1500
        assert fronts.observer.ended_records[-1].error == error.reason


async def test_tokenize_and_detokenize_are_inverse(fronts: Fronts) -> None:
    text = "def f(x):\n    return '🦀' * x\n"
    tokens = await fronts.stub.Tokenize(pb.TokenizeRequest(text=text))
    assert list(tokens.token_ids) == ids_of(text)
    assert tokens.max_context_tokens == 256
    back = await fronts.stub.Detokenize(pb.DetokenizeRequest(token_ids=tokens.token_ids))
    assert back.text == text
    chat = await fronts.stub.Tokenize(pb.TokenizeRequest(messages=[pb.ChatMessage(role="user", content="a")]))
    assert TOKENIZER.decode(list(chat.token_ids), skip_special_tokens=False) == "<|user|>\na<|end|>\n<|assistant|>\n"


async def test_detokenize_takes_what_a_context_holds_and_a_million(
    fronts: Fronts, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a" + "🦀" * 3000  # the first one makes the pieces cut through characters
    crabs = ids_of("a") + ids_of("🦀") * 3000
    assert len(crabs) > 2 * model.INLINE_TOKENS
    assert (await fronts.stub.Detokenize(pb.DetokenizeRequest(token_ids=crabs))).text == text
    for ids, field in ([*crabs, 4096], f"token_ids[{len(crabs)}]"), ([5] * (2**20 + 1), "token_ids"):
        with pytest.raises(grpc.aio.AioRpcError, match=r"at most 1048576|below 4096") as caught:
            await fronts.stub.Detokenize(pb.DetokenizeRequest(token_ids=ids))
        bad = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad) for detail in rpc_status.from_call(cast(Any, caught.value)).details)
        assert bad.field_violations[0].field == field

    monkeypatch.setattr(handler, "MAX_DETOKENIZE_IDS", len(crabs) - 1)
    with pytest.raises(grpc.aio.AioRpcError, match=f"at most {len(crabs) - 1}"):
        await fronts.stub.Detokenize(pb.DetokenizeRequest(token_ids=crabs))
    long = msgspec.structs.replace(demo_model(), max_context_tokens=len(crabs))
    fronts.catalogue.by_name["demo"] = long
    assert (await fronts.stub.Detokenize(pb.DetokenizeRequest(token_ids=crabs))).text == text


@pytest.mark.parametrize(
    ("method", "request_message", "field"),
    [
        ("Tokenize", pb.TokenizeRequest(), "text"),
        ("Tokenize", pb.TokenizeRequest(text="a", messages=[pb.ChatMessage(role="user")]), "text"),
        ("Tokenize", pb.TokenizeRequest(messages=[pb.ChatMessage(role="robot")]), "messages[0].role"),
        ("Detokenize", pb.DetokenizeRequest(token_ids=[1, 4096]), "token_ids[1]"),
        ("ListModels", pb.ListModelsRequest(page_size=1001), "page_size"),
        ("ListModels", pb.ListModelsRequest(page_token="!"), "page_token"),
        ("GetModel", pb.GetModelRequest(model="nobody"), "model"),
        ("Abort", pb.AbortRequest(request_ids=["x"] * 1025), "request_ids"),
    ],
)
async def test_unary_calls_name_the_field_they_refuse(
    fronts: Fronts, method: str, request_message: object, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(fronts.stub, method)(request_message)
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in rpc_status.from_call(cast(Any, caught.value)).details)
    assert bad.field_violations[0].field == field


async def test_models_come_in_pages_that_survive_a_change(fronts: Fronts) -> None:
    fronts.catalogue.by_name = {f"m{i}": demo_model(f"m{i}") for i in range(5)}
    seen, token = [], ""
    while True:
        page = await fronts.stub.ListModels(pb.ListModelsRequest(page_size=2, page_token=token))
        seen += [model.name for model in page.models]
        fronts.catalogue.by_name.pop("m1", None)  # a name already shown goes: nothing is hidden, nothing repeats
        token = page.next_page_token
        if not token:
            break
    assert seen == ["m0", "m1", "m2", "m3", "m4"]


async def test_a_model_tells_its_limits_features_and_defaults(fronts: Fronts) -> None:
    model = (await fronts.stub.GetModel(pb.GetModelRequest(model="demo"))).model
    assert (model.max_context_tokens, model.max_stop_strings, model.ready_replicas) == (256, 16, 2)
    assert list(model.features) == ["generate", "chat"]
    assert model.default_sampling.temperature == 0.5
    assert not model.default_sampling.HasField("seed")
    fronts.catalogue.by_name["base"] = demo_model("base", {"tokenizer.json": ASSETS["tokenizer.json"]})
    assert list((await fronts.stub.GetModel(pb.GetModelRequest(model="base"))).model.features) == ["generate"]


async def test_every_request_is_observed_once(fronts: Fronts) -> None:
    await responses(fronts, generate(stopping={"max_new_tokens": 5}))
    assert fronts.observer.calls == ["arrived", "first_token", "ended"]
    record = fronts.observer.ended_records[0]
    assert (record.front, record.method, record.model) == ("grpc", "Generate", "demo")
    assert record.completion_tokens == 5 == 1 + fronts.observer.later_tokens
    assert record.arrived_at < record.first_token_at <= record.last_token_at <= record.ended_at


async def test_health_can_be_watched_beside_the_service(fronts: Fronts) -> None:
    watch = health_pb2_grpc.HealthStub(fronts.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    async for answer in watch:
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        break
    watch.cancel()
