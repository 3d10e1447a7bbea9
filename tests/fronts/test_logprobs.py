"""Log probabilities of output and prompt, as the `openai` client parses them."""

from __future__ import annotations

import math
from typing import Any

import httpx
import openai
import pytest

from headway.tests.fronts.support.scored import LENGTH, with_logprobs
from headway.tests.fronts.support.scripted_replicas import chunk, place
from headway.tests.fronts.support.serving import Fronts
from headway.tests.fronts.test_openai_front import TALK, events_of, ids_of, text_of

CRAB = ids_of("🦀")
WORDS = ids_of("a b")


def answering(fronts: Fronts, ids: list[int]) -> None:
    fronts.dispatcher.script = lambda request: with_logprobs(request, ids)


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
