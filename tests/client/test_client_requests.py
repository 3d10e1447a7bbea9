"""What the options become on the wire; what no message can hold, or says something else, is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headway.client import Choice, Ebnf, Grammar, InvalidRequest, JsonObject, JsonSchema, Regex
from headway.client.options import GenerateOptions
from headway.client.requests import generate_request


def sent(**options: Any) -> dict[str, Any]:
    message = MessageToDict(generate_request("p", options), preserving_proto_field_name=True)  # type: ignore[arg-type]
    del message["prompt"]
    return message


def test_every_option_has_its_place() -> None:
    options: GenerateOptions = {
        "n": 3,
        "priority": -5,
        "min_new_tokens": 2,
        "logprobs": 0,
        "prompt_logprobs": 20,
        "logit_bias": {7: -1.5, 8: 100},
        "allowed_token_ids": [1, 2],
        "bad_words": ["one", "two"],
        "cache_bypass": True,
        "regex": "a+",
    }
    assert sent(**options) == {
        "n": 3,
        "priority": -5,
        "stopping": {"min_new_tokens": 2},
        "output": {"logprobs": 0, "prompt_logprobs": 20},
        "constraints": {
            "logit_bias": {"7": -1.5, "8": 100.0},
            "allowed_token_ids": [1, 2],
            "bad_words": ["one", "two"],
            "grammar": {"regex": "a+"},
        },
        "cache": {"bypass": True},
    }
    assert sent(**dict.fromkeys(options), json_object=False) == {}
    assert sent(bad_words="one") == {"constraints": {"bad_words": ["one"]}}
    # Zero is zero: the server says what it thinks of it.
    assert sent(n=0, priority=0) == {"n": 0, "priority": 0}


@pytest.mark.parametrize(
    ("grammar", "option", "message"),
    [
        (JsonSchema({"type": "object"}), {"json_schema": {"type": "object"}}, {"json_schema": '{"type": "object"}'}),
        (JsonSchema("{ }"), {"json_schema": "{ }"}, {"json_schema": "{ }"}),
        (JsonSchema(True), {"json_schema": True}, {"json_schema": "true"}),
        (JsonSchema(False), {"json_schema": False}, {"json_schema": "false"}),
        (JsonObject(), {"json_object": True}, {"json_object": {}}),
        (Regex("[0-9]+"), {"regex": "[0-9]+"}, {"regex": "[0-9]+"}),
        (Choice(("yes", "no")), {"choice": ["yes", "no"]}, {"choice": {"texts": ["yes", "no"]}}),
        (Choice("yes"), {"choice": "yes"}, {"choice": {"texts": ["yes"]}}),
        # Nothing to choose from is not no grammar: the server refuses it.
        (Choice([]), {"choice": []}, {"choice": {}}),
        (Ebnf('start: "x"'), {"ebnf": 'start: "x"'}, {"ebnf": 'start: "x"'}),
    ],
)
def test_a_grammar_is_a_value_or_an_option(grammar: Grammar, option: dict[str, Any], message: object) -> None:
    assert sent(grammar=grammar) == sent(**option) == {"constraints": {"grammar": message}}


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"n": -1}, "n", "n .*-1"),
        ({"priority": 2**40}, "priority", str(2**40)),
        ({"min_new_tokens": -1}, "stopping.min_new_tokens", "-1"),
        ({"logprobs": True}, "output.logprobs", "number of tokens at each place.* got True"),
        ({"prompt_logprobs": False}, "output.prompt_logprobs", "got False"),
        ({"logit_bias": {-1: 1.0}}, "constraints.logit_bias", "-1"),
        ({"logit_bias": {"a": 1.0}}, "constraints.logit_bias", "logit_bias"),
        ({"logit_bias": 5}, "constraints.logit_bias", "logit_bias"),
        ({"allowed_token_ids": []}, "constraints.allowed_token_ids", "empty: no token could come"),
        ({"bad_words": [3]}, "constraints.bad_words", "bad_words must be text"),
        ({"regex": 3}, "constraints.grammar.regex", "regex must be text"),
        ({"ebnf": "\udcff"}, "constraints.grammar.ebnf", "ebnf is not valid UTF-8"),
        ({"choice": ["a", 1]}, "constraints.grammar.choice.texts", "choice must be text"),
        ({"json_schema": {"maximum": float("inf")}}, "constraints.grammar.json_schema", "json_schema .*JSON"),
        ({"json_schema": {"enum": {1}}}, "constraints.grammar.json_schema", "json_schema .*set"),
        ({"grammar": "a+"}, "constraints.grammar", "one of JsonSchema, JsonObject, Regex, Choice, Ebnf; got 'a\\+'"),
        ({"regex": "a", "choice": ["b"]}, "constraints.grammar", "regex and choice are set; .*at most one"),
        ({"grammar": Regex("a"), "json_object": True}, "constraints.grammar", "grammar and json_object are set"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(options: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        sent(**options)
    assert caught.value.field == field
