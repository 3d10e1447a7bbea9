"""Several sequences and log probabilities, the same for both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from headway.client import AsyncHeadway, Finish, FinishReason, GenerateOptions, Headway, Internal, Overloaded
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread, answer, fail_after

SEVERAL: GenerateOptions = {"n": 3, "max_new_tokens": 4, "return_token_ids": True, "logprobs": 2}


async def test_several_sequences_come_whole_and_mixed(server: ServerThread) -> None:
    with Headway(server.address, timeout=20) as client:
        whole = await asyncio.to_thread(lambda: client.generate("abc", **SEVERAL))
        with client.generate_stream("abc", **SEVERAL) as stream:
            deltas = await asyncio.to_thread(list, stream)
    assert [(one.index, one.text, one.token_ids) for one in whole.sequences] == [
        (0, "w0 w1 w2 w3 ", [0, 1, 2, 3]),
        (1, "v0 v1 v2 ", [0, 1, 2]),
        (2, "u0 u1 ", [0, 1]),
    ]
    assert [one.finish for one in whole.sequences] == [
        Finish(FinishReason.LENGTH),
        Finish(FinishReason.STOP, stop_token_id=1),
        Finish(FinishReason.STOP, stop_token_id=2),
    ]
    first = whole.sequences[0]
    assert (whole.text, whole.token_ids, whole.finish) == (first.text, first.token_ids, first.finish)
    assert whole.logprobs == first.logprobs and whole.usage.completion_tokens == 9
    assert [(delta.index, delta.offset) for delta in deltas[:4]] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert stream.finishes == {one.index: one.finish for one in whole.sequences} and stream.finish == first.finish

    async with AsyncHeadway(server.address, timeout=20) as async_client:
        assert await async_client.generate("abc", **SEVERAL) == whole
        assert await async_client.chat("abc", **SEVERAL) != whole  # longer prompt, as many sequences
        async with async_client.generate_stream("abc", **SEVERAL) as async_stream:
            assert [delta async for delta in async_stream] == deltas
        assert async_stream.finishes == stream.finishes


def test_log_probabilities_are_typed_and_keep_bytes_that_are_no_characters(server: ServerThread) -> None:
    with Headway(server.address, timeout=20) as client:
        found = client.generate("abc", max_new_tokens=2, logprobs=2, prompt_logprobs=0)
        assert client.generate("abc", max_new_tokens=2).logprobs == []
    assert [(place.token_id, place.logprob, place.text) for place in found.logprobs] == [(0, -1, "\n"), (1, -1, "\n")]
    assert [(entry.token_id, entry.logprob, entry.text, entry.utf8) for entry in found.logprobs[0].top] == [
        (200, -0.5, "\ufffd", b"\xc3"),
        (201, -1.0, "\ufffd", b"\xc4"),
    ]
    assert [(place.token_id, place.top) for place in found.prompt_logprobs] == [(ord("b"), []), (ord("c"), [])]
    document = msgspec.json.decode(msgspec.json.encode(found))
    place = document["sequences"][0]["logprobs"][1]
    assert (place["token_id"], place["utf8"], place["top"][1]["logprob"]) == (1, "Cg==", -1.0)


async def without_an_end(request: pb.GenerateRequest, prompt: list[int]) -> AsyncIterator[pb.GenerateResponse]:
    async for response in answer(request, prompt):
        if not (response.HasField("finished") and response.finished.index == 1):
            yield response


async def test_errors_between_sequences_stay_typed(server: ServerThread, servicer: ScriptedInference) -> None:
    error = Overloaded("no pages are left", field="n", retry_after_s=2)
    async with AsyncHeadway(server.address, timeout=20) as client:
        servicer.script = [fail_after(10, error), without_an_end]
        async with client.generate_stream("p", **SEVERAL) as stream:
            texts = [""] * 3
            with pytest.raises(Overloaded, match="no pages are left") as caught:
                async for delta in stream:
                    texts[delta.index] += delta.text
        assert (caught.value.field, caught.value.retry_after_s) == ("n", 2)
        assert texts == ["w0 w1 w2 ", "v0 v1 v2 ", "u0 u1 "] and list(stream.finishes) == [2]
        # The usage alone is no end while a sequence has not told its own.
        with pytest.raises(Internal, match="before its last message"):
            await client.generate("p", **SEVERAL)
