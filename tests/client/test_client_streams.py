"""Streams and whole results, the same for both clients."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator

import pytest

from headway.client import AsyncHeadway, ChatMessage, FinishReason, GenerateOptions, Headway, Internal, InvalidRequest
from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread, fail_after


@pytest.fixture
def headway(server: ServerThread) -> Iterator[Headway]:
    with Headway(server.address, timeout=20) as client:
        yield client


@pytest.fixture
async def async_headway(server: ServerThread) -> AsyncIterator[AsyncHeadway]:
    async with AsyncHeadway(server.address, timeout=20) as client:
        yield client


def test_a_stream_gives_deltas_between_its_facts(headway: Headway) -> None:
    with headway.generate_stream("x" * 40, max_new_tokens=3, return_token_ids=True) as stream:
        assert stream.started is None
        deltas = list(stream)
    assert [(delta.text, delta.token_ids, delta.offset) for delta in deltas] == [
        ("w0 ", [0], 0),
        ("w1 ", [1], 1),
        ("w2 ", [2], 2),
    ]
    assert stream.started is not None and (stream.started.replica_id, stream.started.cached_tokens) == ("replica-0", 32)
    assert stream.finish is not None and stream.finish.reason is FinishReason.LENGTH
    assert stream.usage is not None and stream.usage.completion_tokens == 3
    assert stream.usage.total_s == pytest.approx(0.02)
    assert str(stream.usage) == "40 prompt tokens (32 from cache), 3 new in 0.02 s, the first after 5 ms, moved 1x"


def test_a_whole_result(headway: Headway) -> None:
    answer = headway.generate("abc", max_new_tokens=5, stop="w2", seed=2**64 - 1, request_id="mine")
    assert (answer.text, str(answer), answer.request_id, answer.token_ids) == ("w0 w1 ", "w0 w1 ", "mine", [])
    assert (answer.finish.reason, answer.finish.stop_string, answer.finish.stop_token_id) == ("stop", "w2", None)
    assert answer.started is not None and answer.started.seed == 2**64 - 1


async def test_the_async_client_answers_the_same(headway: Headway, async_headway: AsyncHeadway) -> None:
    options: GenerateOptions = {"max_new_tokens": 6, "return_token_ids": True, "temperature": 0.0}
    expected = await asyncio.to_thread(lambda: headway.generate([1, 2, 3], **options))
    assert await async_headway.generate([1, 2, 3], **options) == expected
    async with async_headway.generate_stream([1, 2, 3], **options) as stream:
        assert "".join([delta.text async for delta in stream]) == expected.text
    assert (stream.finish, stream.usage) == (expected.finish, expected.usage)


async def test_many_streams_share_a_client(async_headway: AsyncHeadway) -> None:
    answers = await asyncio.gather(
        *(async_headway.generate("p", max_new_tokens=n, request_id=str(n)) for n in range(1, 40))
    )
    assert [len(answer.text.split()) for answer in answers] == list(range(1, 40))


async def test_chat_sends_the_conversation(
    headway: Headway, async_headway: AsyncHeadway, servicer: ScriptedInference
) -> None:
    conversation: list[ChatMessage | dict[str, str]] = [
        ChatMessage("system", "Be brief."),
        {"role": "user", "content": "Hi"},
    ]
    answer = await async_headway.chat(conversation, max_new_tokens=2, template_args={"thinking": False})
    assert answer.text == "w0 w1 "
    sent = servicer.chats[0]
    assert [(message.role, message.content) for message in sent.messages] == [("system", "Be brief."), ("user", "Hi")]
    assert dict(sent.template_args) == {"thinking": False} and not sent.generate.HasField("prompt")
    with headway.chat_stream("Hi", max_new_tokens=2) as stream:
        assert [delta.text for delta in stream] == ["w0 ", "w1 "]
    assert servicer.chats[1].messages[0].role == "user"


def test_unset_options_stay_unset_and_zero_is_zero(headway: Headway, servicer: ScriptedInference) -> None:
    headway.generate("p", temperature=0, top_k=None, ignore_eos=False)
    request = servicer.requests[0]
    assert request.sampling.HasField("temperature") and request.stopping.HasField("ignore_eos")
    assert not request.sampling.HasField("top_k") and not request.HasField("cache")


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"top_k": -1}, "sampling.top_k", "at least 0"),
        ({"seed": 2**64}, "sampling.seed", "at least 0"),
        ({"temperature": "hot"}, "sampling.temperature", "'hot'"),
        ({"stop": ["ok", "\udcff"]}, "stopping.stop_strings", "UTF-8"),
        ({"stop_token_ids": [-4]}, "stopping.stop_token_ids", "-4"),
    ],
)
def test_a_value_no_message_can_hold_names_its_field(
    headway: Headway, options: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        headway.generate("p", **options)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_bad_prompts_name_their_field(headway: Headway) -> None:
    with pytest.raises(InvalidRequest, match="UTF-8") as caught:
        headway.generate("\udcff")
    assert caught.value.field == "prompt.text"
    with pytest.raises(InvalidRequest) as caught:
        headway.generate([5, -1])
    assert caught.value.field == "prompt.token_ids"
    with pytest.raises(InvalidRequest, match=r"messages\[0\] must have role and content") as caught:
        headway.chat([{"role": "user", "text": "Hi"}])
    with pytest.raises(TypeError, match="unknown option 'temprature'"):
        headway.generate("p", temprature=1)  # type: ignore[call-arg]


def test_leaving_a_stream_ends_it_on_the_server(headway: Headway, servicer: ScriptedInference) -> None:
    servicer.script = [servicer.hang]
    with headway.generate_stream("p") as stream:
        assert next(stream).text == "w0 "
    assert servicer.cancelled.wait(10)
    assert list(stream) == []


async def test_leaving_an_async_stream_or_cancelling_its_task_ends_it_on_the_server(
    async_headway: AsyncHeadway, servicer: ScriptedInference
) -> None:
    servicer.script = [servicer.hang, servicer.hang]
    async with async_headway.generate_stream("p") as stream:
        assert (await anext(stream)).text == "w0 "
    assert await asyncio.to_thread(servicer.cancelled.wait, 10)
    assert [delta async for delta in stream] == []

    servicer.cancelled.clear()
    servicer.started.clear()
    task = asyncio.create_task(async_headway.generate("p"))
    await asyncio.to_thread(servicer.started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(servicer.cancelled.wait, 10)


def test_a_stream_cut_short_is_an_error_not_an_answer(headway: Headway, servicer: ScriptedInference) -> None:
    servicer.script = [fail_after(3, None)]
    with pytest.raises(Internal, match="before its last message"):
        headway.generate("p")


async def test_unary_calls(headway: Headway, async_headway: AsyncHeadway, servicer: ScriptedInference) -> None:
    servicer.models.append(servicer._model("second"))
    tokens = await async_headway.tokenize("hé")
    assert (tokens.token_ids, len(tokens), tokens.max_context_tokens) == ([104, 195, 169], 3, 1024)
    assert await async_headway.detokenize(tokens.token_ids) == "hé"
    assert (await async_headway.tokenize(messages="Hi")).token_ids == list(b"userHi")
    models = await async_headway.models()
    assert [model.name for model in models] == ["scripted", "second"]
    assert (models[0].default_sampling.temperature, models[0].vocab_size) == (0.5, 256)
    assert (await async_headway.model("second")).name == "second"
    assert await async_headway.abort("a", "gone", "b") == ["a", "b"]

    def synchronous() -> None:
        assert headway.tokenize("hé") == tokens
        assert headway.detokenize([104]) == "h"
        assert headway.models() == models
        assert headway.model().name == "scripted"
        assert headway.abort("a", "gone") == ["a"]

    await asyncio.to_thread(synchronous)


@pytest.mark.parametrize("address", ["http://127.0.0.1:80", "localhost", ":80", "host:0", "host:65536", "host:http"])
def test_an_address_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT"):
        Headway(address)


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_a_timeout_that_cannot_be_is_refused(headway: Headway, timeout: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        headway.generate("p", timeout=timeout)
