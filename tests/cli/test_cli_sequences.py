"""`headway generate` with several sequences, log probabilities and grammars."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from headway.core.errors import Overloaded
from headway.tests.client.support.scripted_inference import ScriptedInference, fail_after

if TYPE_CHECKING:
    from headway.tests.cli.conftest import Command

SCHEMA = '{"type": "object"}'


def test_each_sequence_comes_under_its_number_with_its_log_probabilities(headway: Command) -> None:
    done = headway("generate", "p", "-n", "3", "--n", "3", "--logprobs", "2", "--stats")
    assert done.stdout == (
        "[0]\nw0 w1 w2 \n\n"
        "#  token  logprob  likeliest\n"
        "0  '\\n'    -1.000  b'\\xc3' -0.500  b'\\xc4' -1.000\n"
        "1  '\\n'    -1.000  b'\\xc3' -0.500  b'\\xc4' -1.000\n"
        "2  '\\n'    -1.000  b'\\xc3' -0.500  b'\\xc4' -1.000\n"
        "\n[1]\nv0 v1 \n\n"
        "#  token  logprob  likeliest\n"
        "0  '\\n'    -1.000  b'\\xc3' -0.500  b'\\xc4' -1.000\n"
        "1  '\\n'    -1.000  b'\\xc3' -0.500  b'\\xc4' -1.000\n"
        "\n[2]\nu0 \n\n"
        "#  token  logprob  likeliest\n"
        "0  '\\n'    -1.000  b'\\xc3' -0.500  b'\\xc4' -1.000\n"
    )
    assert "6 new" in done.stderr and "ended by length, stop, stop" in done.stderr
    alone = headway.inside("generate", "p", "-n", "1", "--logprobs", "0")
    assert alone.stdout == "w0 \n\n#  token  logprob\n0  '\\n'    -1.000\n"


def test_json_holds_everything(headway: Command) -> None:
    document = json.loads(headway.inside("generate", "p", "-n", "3", "--n", "2", "--logprobs", "1", "--json").stdout)
    assert document["text"] == document["sequences"][0]["text"] == "w0 w1 w2 "
    second = document["sequences"][1]
    assert (second["index"], second["text"], second["token_ids"]) == (1, "v0 v1 ", [0, 1])
    assert second["finish"] == {"reason": "stop", "stop_string": None, "stop_token_id": 1}
    place = second["logprobs"][1]
    assert (place["token_id"], place["logprob"], place["text"], len(place["top"])) == (1, -1.0, "\n", 1)


def test_what_came_before_an_error_is_shown(headway: Command, servicer: ScriptedInference) -> None:
    servicer.script = [fail_after(6, Overloaded("no pages are left"))]
    done = headway.inside("generate", "p", "--n", "2")
    assert (done.exit_code, done.stdout) == (1, "[0]\nw0 w1 w2 ") and "no pages are left" in done.stderr


def test_grammars_are_sent_as_they_are(headway: Command, servicer: ScriptedInference) -> None:
    schema, rules = headway.home / "schema.json", headway.home / "rules.lark"
    schema.write_text(SCHEMA)
    rules.write_text('start: "é"\n', encoding="utf-8")
    for flags in (
        ["--json-schema", SCHEMA, "--n", "2", "--logprobs", "0", "--stop", "a", "--stop", "b"],
        ["--json-schema", str(schema)],
        ["--regex", "[0-9]+"],
        ["--choice", "yes", "--choice", "no"],
        ["--grammar", str(rules)],
        ["--min-tokens", "3"],
    ):
        done = headway.inside("generate", "p", "-n", "4", *flags)
        assert (done.exit_code, done.stderr) == (0, ""), done
    grammars = [request.constraints.grammar for request in servicer.requests]
    assert [grammar.WhichOneof("form") for grammar in grammars] == [
        "json_schema", "json_schema", "regex", "choice", "ebnf", None,
    ]  # fmt: skip
    assert grammars[0].json_schema == grammars[1].json_schema == SCHEMA
    assert (grammars[2].regex, list(grammars[3].choice.texts)) == ("[0-9]+", ["yes", "no"])
    assert grammars[4].ebnf == 'start: "é"\n'
    first, last = servicer.requests[0], servicer.requests[-1]
    assert (first.n, first.output.HasField("logprobs"), list(first.stopping.stop_strings)) == (2, True, ["a", "b"])
    assert last.stopping.min_new_tokens == 3 and not last.HasField("n") and not last.output.HasField("logprobs")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--regex", "a", "--choice", "b"], ["--regex and --choice exclude each other"]),
        (["--regex", "a", "--min-tokens", "2"], ["--min-tokens and --regex exclude each other"]),
        (["--min-tokens", "9", "-n", "4"], ["--min-tokens 9 is above --max-tokens 4"]),
        (["--json-schema", "{nonsense"], ["--json-schema: the text is no JSON"]),
        (["--json-schema", "nowhere.json"], ["cannot read 'nowhere.json'", "begins with {"]),
        (["--grammar", "."], ["--grammar: cannot read '.'"]),
        (["--n", "-1"], ["n Value out of range: -1"]),
    ],
)
def test_what_cannot_go_together_is_said_in_the_flags_words(
    headway: Command, servicer: ScriptedInference, flags: list[str], words: list[str]
) -> None:
    done = headway.inside("generate", "p", *flags)
    assert (done.exit_code, done.stdout, servicer.requests) == (1, "", [])
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr
