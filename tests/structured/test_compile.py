"""Grammars into matchers: whatever the text, it is refused by name or followed, and nothing else comes of it."""

import asyncio
import json
import re
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from headway.core.blocks import root_key
from headway.core.constraints import Grammar, TokenRules
from headway.core.errors import HeadwayError, InvalidRequest
from headway.core.sampling import SamplingParams
from headway.worker.scheduler import Request
from headway.worker.structured import pool
from headway.worker.structured.compiler import MAX_WAITING, GrammarCompiler
from headway.worker.structured.crew import Crew
from headway.worker.structured.guide import Guide
from headway.worker.structured.limits import parser_limits
from headway.worker.structured.sandbox import Job, Setup, Verdict, make_tokenizer, try_grammar
from headway.worker.structured.schema import prepared_pattern
from headway.worker.structured.source import to_source

DEMO = Path(__file__).parents[2] / "demo" / "headway-demo"
EOS = (0, 4)
TOKENIZER = make_tokenizer(Setup((DEMO / "tokenizer.json").read_text(), 4096, EOS))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
keywords = st.sampled_from(
    [
        "type",
        "properties",
        "items",
        "required",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "enum",
        "const",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "prefixItems",
        "not",
        "additionalProperties",
        "patternProperties",
        "minProperties",
        "$defs",
        "x-guidance",
        "if",
        "uniqueItems",
    ]
)
schemas = st.recursive(
    st.sampled_from(
        ["string", "object", "array", "integer", "#", "#/$defs/a", "^a+$", "date", -1, 0, 3, 1.5, True, None]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=4),
    max_leaves=12,
)
scraps = st.lists(
    st.sampled_from(
        ["start", "root", ":", "::=", "a", '"x"', "/b+/", "|", "(", ")", "*", "{3}", "{9999}", "\n", "[^", "]"]
    )
    | st.sampled_from(["~", "&", "%json", "%regex", "{}", "@", "<|end|>", "\\", "(?i)", ".", "^", "$", "\\p{L}", " "])
    | st.text(max_size=3),
    max_size=12,
).map("".join)
grammars = st.one_of(
    st.builds(Grammar, st.just("json_schema"), (schemas | json_values).map(json.dumps) | st.text(max_size=20)),
    st.builds(Grammar, st.sampled_from(["regex", "ebnf"]), scraps),
    st.builds(Grammar, st.just("choice"), choices=st.lists(st.text(max_size=9), min_size=1, max_size=4).map(tuple)),
)


def request_for(delivered: list[int] | None = None, **fields: object) -> Request:
    delivered = delivered or []
    return Request(
        session=1,
        id=1,
        tokens=array("I", [9, *delivered]),
        prompt_tokens=1,
        max_new_tokens=10,
        sampling=SamplingParams(),
        root=root_key("tests"),
        page_size=16,
        eos_token_ids=EOS,
        **fields,  # type: ignore[arg-type]
    )


@settings(max_examples=400, deadline=None)
@given(grammars)
def test_any_text_is_refused_or_followed(grammar: Grammar) -> None:
    verdict = try_grammar(TOKENIZER, grammar)
    assert bool(verdict.source) != bool(verdict.error)
    assert len(verdict.error) < 1000
    if verdict.source:
        matcher = LLMatcher(TOKENIZER, verdict.source, log_level=0, limits=parser_limits())
        assert not matcher.is_error()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_a_choice_takes_its_texts_and_no_others(texts: list[str]) -> None:
    source = to_source(Grammar("choice", choices=tuple(texts)))
    for text in [*texts, texts[0] + "x"]:
        matcher = LLMatcher(TOKENIZER, source, log_level=0)
        taken = matcher.consume_tokens(TOKENIZER.tokenize_str(text)) and matcher.is_accepting()
        assert taken == (text in texts)


@pytest.mark.parametrize(
    "pattern",
    [
        r'^[^"]{1,3}$',
        r"^[^\\]$",
        r"^[^\x22\\]+$",
        r'^\[^"$',
        r'^[^\x00-\x1f"]$',
        r'^[^^"]$',
        r"^[[^]b]$",
        r"^[a&&b]$",
        r"^[!-~]{2}$",
        r"^[\x23-\x7e]$",
        r"^[^a\]\"]$",
        r"[\s\S]",
        r"^[+--]$",
    ],
)
@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
def test_a_pattern_holds_for_what_json_escapes(pattern: str) -> None:
    source = to_source(Grammar("json_schema", json.dumps({"type": "string", "pattern": pattern})))
    for text in [
        "\\",
        '"',
        '""',
        "\\\\",
        '\\"',
        "a",
        "ab",
        "&",
        "-",
        "[",
        "]",
        "^",
        "[^a",
        "[b]",
        "é",
        "\n",
        "b]",
        "^b]",
    ]:
        matcher = LLMatcher(TOKENIZER, source, log_level=0)
        tokens = TOKENIZER.tokenize_str(json.dumps(text, ensure_ascii=False))
        taken = matcher.consume_tokens(tokens) and matcher.is_accepting()
        assert taken == (re.search(pattern.replace("[+--]", r"[+-\-]"), text) is not None), text


@pytest.mark.parametrize("pattern", [r"[\x00-!]", "[\x01]", "[]a]", "[^]", r"[a\0]"])
def test_patterns_that_cannot_hold_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        prepared_pattern(pattern)


@pytest.mark.parametrize(
    "grammar, words",
    [
        (Grammar("json_schema", '{"$ref": "#"}'), "no token can come next: no output is of this grammar"),
        (Grammar("ebnf", "start: A\nA: /.*a.{20}/ & /.*b.{20}/ & ~/.*c.{12}/"), "fuel exhausted when checking"),
        (Grammar("ebnf", "start: A\nA: /(/"), "unclosed group"),
    ],
)
def test_refusals_are_told_without_the_matchers_own_notes(grammar: Grammar, words: str) -> None:
    error = try_grammar(TOKENIZER, grammar).error
    assert words in error
    assert not re.search("NoExtensionBias|<state>|non-verbose|Parser:", error)


def bits(guide: Guide) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(np.frombuffer(guide.mask, np.uint8), bitorder="little")))


async def test_compiled_once_and_refused_once() -> None:
    compiler = GrammarCompiler(DEMO, 4096, EOS, Crew())
    a, b = (TOKENIZER.tokenize_str(letter)[0] for letter in "ab")
    try:
        first, again = await asyncio.gather(*(compiler.guide(Grammar("regex", "ab?"), request_for()) for _ in range(2)))
        assert bits(first) == bits(again) >= {a}
        crew = Crew()
        first.push(a)
        crew.advance([first])
        crew.wait([first], 10)
        assert bits(first) == {b, *EOS} and bits(again) >= {a} and b not in bits(again)
        elsewhere = await compiler.guide(Grammar("regex", "ab?"), request_for([a]))
        assert bits(elsewhere) == bits(first)
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="regex"):
                await compiler.guide(Grammar("regex", "(("), request_for())
        with pytest.raises(InvalidRequest, match="nothing can follow"):
            await compiler.guide(Grammar("choice", choices=("",)), request_for_no_end())
    finally:
        await compiler.close()


async def test_an_end_token_that_is_text_does_not_come_in_the_middle() -> None:
    compiler = GrammarCompiler(DEMO, 4096, EOS, Crew())
    a, b = (TOKENIZER.tokenize_str(letter)[0] for letter in "ab")
    request = request_for()
    request.eos_token_ids = frozenset([a])
    try:
        guide = await compiler.guide(Grammar("regex", "aa|b"), request)
        assert a not in bits(guide) and b in bits(guide) and not bits(guide) & set(EOS)
        guide.push(b)
        guide.advance()
        assert bits(guide) == {a} and not guide.over
    finally:
        await compiler.close()


async def test_what_was_delivered_elsewhere_moves_one_request_only() -> None:
    """And counts towards its least length: an end that may come is not the engine's to give."""
    compiler = GrammarCompiler(DEMO, 4096, EOS, Crew())
    a, b = (TOKENIZER.tokenize_str(letter)[0] for letter in "ab")
    grammar, rules = Grammar("regex", "[ab]{4}"), TokenRules(min_new_tokens=4, end_token_ids=EOS)
    try:
        first = bits(await compiler.guide(grammar, request_for(rules=rules)))
        guide = await compiler.guide(grammar, request_for([a, b, a], rules=rules))
        assert {a, b} == bits(guide) < first, "no text of several letters any more"
        assert bits(await compiler.guide(grammar, request_for(rules=rules))) == first
        guide.push(b)
        guide.advance()
        assert bits(guide) == set(EOS) and not guide.over
        short = await compiler.guide(Grammar("regex", "[ab]{2}"), request_for([a], rules=rules))
        short.push(b)
        short.advance()
        assert short.over, "nothing but an end could follow, and that is too early"
    finally:
        await compiler.close()


def request_for_no_end() -> Request:
    request = request_for()
    request.eos_token_ids = frozenset()
    return request


async def test_a_killed_sandbox_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What died before a grammar came is not laid at its door; what dies over it is, and is not asked again."""
    compiler = GrammarCompiler(DEMO, 4096, EOS, Crew())
    asked = []

    async def ask_and_kill(process: asyncio.subprocess.Process, message: Setup | Job) -> Verdict:
        if isinstance(message, Job) and message.grammar.text == "deadly":
            asked.append(process)
            process.kill()
        return await ask(process, message)

    ask = pool._ask
    monkeypatch.setattr(pool, "_ask", ask_and_kill)
    try:
        await compiler.guide(Grammar("regex", "a"), request_for())
        assert compiler._sandboxes is not None
        for process in compiler._sandboxes._all:
            process.kill()
        await compiler.guide(Grammar("regex", "b"), request_for())
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="memory"):
                await compiler.guide(Grammar("regex", "deadly"), request_for())
        assert len(asked) == 2
        await compiler.guide(Grammar("regex", "c"), request_for())
        assert len(compiler._sandboxes._all) == 1
    finally:
        await compiler.close()


@pytest.mark.parametrize("kind", ["words", "none", "text", "too many"])
async def test_a_tokenizer_that_cannot_be_read_refuses_grammars_by_name(tmp_path: Path, kind: str) -> None:
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    if kind == "words":
        (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words, "added_tokens": []}))
    elif kind == "text":
        (tmp_path / "tokenizer.json").write_text("gpt2")
    elif kind == "too many":
        (tmp_path / "tokenizer.json").write_text((DEMO / "tokenizer.json").read_text())
    compiler = GrammarCompiler(tmp_path, 100, (), Crew())
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="tokenizer") as refused:
            await compiler.guide(Grammar("regex", "a"), request_for())
        assert refused.value.field == "grammar"
    await compiler.close()


async def test_too_many_that_wait_are_refused() -> None:
    compiler = GrammarCompiler(DEMO, 4096, EOS, Crew())
    try:
        waiting = [compiler.guide(Grammar("regex", "a" * (at + 1)), request_for()) for at in range(300)]
        done = await asyncio.gather(*waiting, return_exceptions=True)
        refused = [error for error in done if isinstance(error, HeadwayError)]
        assert len(refused) == 300 - MAX_WAITING, "those that wait for the tokenizer count"
        assert {error.reason for error in refused} == {"OVERLOADED"} and not compiler._compiling
        assert isinstance(await compiler.guide(Grammar("regex", "a" * 300), request_for()), Guide)
    finally:
        await compiler.close()
