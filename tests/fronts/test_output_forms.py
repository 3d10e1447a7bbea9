"""Grammars of the output in every form of either front, and what is refused of them in the caller's words."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from headway.core.constraints import Grammar
from headway.core.errors import HeadwayError, InvalidRequest
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.router.fronts.inference_requests import from_generate
from headway.router.fronts.openai.requests import read_chat, read_completion
from headway.router.validation.fields import check_fields
from headway.tests.fronts.support.scripted_replicas import chunk
from headway.tests.fronts.support.serving import Fronts
from headway.tests.fronts.test_openai_front import TALK, events_of, ids_of

WORDS = ids_of("a b")


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
