"""What a request may ask beside its text: deadlines, stop strings and bad words."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai

from headway.tests.fronts.support.scored import LENGTH
from headway.tests.fronts.support.scripted_replicas import chunk
from headway.tests.fronts.support.serving import Fronts
from headway.tests.fronts.test_openai_front import events_of, ids_of

WORDS = ids_of("a b")


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


async def test_bad_words_are_spelled_at_the_start_and_after_a_space(fronts: Fronts, client: openai.AsyncOpenAI) -> None:
    await client.completions.create(model="demo", prompt="x", extra_body={"bad_words": ["return", " return"]})
    assert fronts.dispatcher.requests[0].rules.bad_words == (tuple(ids_of("return")), tuple(ids_of(" return")))
