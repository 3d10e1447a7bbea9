"""Structured requests against a real worker: exact whatever else runs, refused by name, ended in order."""

import asyncio
import json
import re
from pathlib import Path

import grpc
import pytest
from engine_client import GREEDY
from tokenizers import Tokenizer

from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import (
    FINISH_REASON_ABORTED,
    FINISH_REASON_EOS,
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Choice,
    Grammar,
    JsonObject,
)

DEMO = Path(__file__).parents[2] / "demo" / "headway-demo"
TEXT = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
EOS = [0, 4]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
SHAPES = {"tp1": (), "tp2": ("--tp", "2"), "pp2": ("--pp", "2")}
POOL = ("--pages", "20", "--no-admission-forecast")
SAMPLED = SamplingParams(temperature=1.0, seed=11)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMA = Grammar(json_schema=json.dumps(PERSON))
SLOW = Grammar(
    json_schema=json.dumps({"allOf": [{"type": "string", "pattern": f".*a.{{{at}}}b.*"} for at in range(1, 30)]})
)
PROMPT = TEXT.encode("def main():\n    return ").ids


def prompt(seed: int, length: int = 40) -> list[int]:
    return [(seed * 7919 + 17 * at) % 3000 + 300 for at in range(length)]


def text(stream: object) -> str:
    return TEXT.decode(stream.token_ids, skip_special_tokens=True)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("grammar", "fits"),
    [
        (Grammar(regex=r"[a-f]{3}-\d{1,5}(\.\d\d)?x"), r"[a-f]{3}-\d{1,5}(\.\d\d)?x"),
        (Grammar(choice=Choice(texts=["yes", "no", "naïve \U0001f600"])), "yes|no|naïve \U0001f600"),
        (Grammar(ebnf='start: "a" b{2}\nb: "x" | "y"'), "a[xy][xy]"),
        (Grammar(ebnf='root ::= "a" b b\nb ::= "x" | "y"'), "a[xy][xy]"),
    ],
)
async def test_the_whole_output_is_of_the_grammar(worker_of, session_to, grammar, fits):
    async with session_to(worker_of(*POOL)) as session:
        for seed in range(6):
            done = await session.generate(
                PROMPT, 60, SamplingParams(temperature=1.0, seed=seed), grammar=grammar, eos_token_ids=EOS
            )
            assert done.last.finish_reason == FINISH_REASON_EOS and done.token_ids[-1] in EOS
            assert re.fullmatch(fits, text(done))


async def test_a_json_object(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        grammar = Grammar(json_object=JsonObject())
        ends = [
            await session.generate(
                PROMPT, 200, SamplingParams(temperature=1.0, seed=seed), grammar=grammar, eos_token_ids=EOS
            )
            for seed in range(4)
        ]
        whole = [text(done) for done in ends if done.last.finish_reason == FINISH_REASON_EOS]
        assert whole and all(isinstance(json.loads(found), dict) for found in whole)


@pytest.mark.parametrize("shape", SHAPES)
async def test_same_tokens_alone_among_others_and_after_preemption(worker_of, session_to, shape):
    """The pool holds the prompts of these requests, but not what they grow to. In float32, so that shapes which sum in
    other orders choose alike."""
    worker = worker_of(*SHAPES[shape], *POOL, "--dtype", "float32")
    prompts = [prompt(at, 30 + at) for at in range(16)]
    grammars = [SCHEMA, Grammar(regex="[a-z ]{40}"), None, Grammar(regex="([0-9]+,){12}")] * 4

    async def submit(session, at):
        fields = {"grammar": grammars[at], "eos_token_ids": EOS} if grammars[at] else {}
        return await session.submit(prompts[at], 24, SAMPLED if at % 3 else GREEDY, **fields)

    async with session_to(worker) as session:
        alone = []
        for at in range(16):
            alone.append(await submit(session, at))
            await asyncio.wait_for(alone[-1].done.wait(), 60)
        before = (await session.idle()).totals.preemptions
        together = [await submit(session, at) for at in range(16)]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in together))
        load = await session.idle()
    assert load.totals.preemptions > before and load.used_pages == 0
    assert [stream.token_ids for stream in together] == [stream.token_ids for stream in alone]
    assert sum(stream.last.preemptions for at, stream in enumerate(together) if grammars[at]) > 0
    _same_at_every_shape([stream.token_ids for stream in alone])


def _same_at_every_shape(tokens: list[list[int]], seen: list[list[list[int]]] = []) -> None:  # noqa: B006
    seen.append(tokens)
    assert tokens == seen[0]


async def test_a_continuation_goes_on_in_the_grammar(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        whole = await session.generate(PROMPT, 40, SAMPLED, grammar=SCHEMA, eos_token_ids=EOS)
        for delivered in (1, len(whole.token_ids) // 2, len(whole.token_ids) - 1):
            known = PROMPT + whole.token_ids[:delivered]
            rest = await session.generate(known, 40, SAMPLED, grammar=SCHEMA, eos_token_ids=EOS, delivered=delivered)
            assert whole.token_ids[:delivered] + rest.token_ids == whole.token_ids
        wrong = await session.generate(PROMPT, 40, grammar=SCHEMA, eos_token_ids=EOS, delivered=2)
        assert wrong.refusal.code == INVALID and wrong.refusal.field == "token_ids"


async def test_what_is_complete_ends_without_an_end_token(worker_of, session_to):
    """The grammar goes before a least length, allowed ids and ignore_eos; other stops go on cutting."""
    grammar = Grammar(regex="ab?")
    a, b = (TEXT.encode(letter).ids[0] for letter in "ab")
    both = TEXT.encode("ab").ids
    async with session_to(worker_of(*POOL)) as session:

        async def end(**fields: object):
            return await session.generate(PROMPT, 9, grammar=grammar, **fields)

        ignoring = await end()
        assert text(ignoring) == "ab" and ignoring.last.finish_reason == FINISH_REASON_STOP
        assert not ignoring.last.HasField("stop_token_id")
        least = await end(eos_token_ids=EOS, min_new_tokens=8)
        assert text(least) == "ab" and least.last.finish_reason == FINISH_REASON_STOP
        allowed = await end(eos_token_ids=EOS, allowed_token_ids=[a, b])
        assert allowed.token_ids == [a, b] and allowed.last.finish_reason == FINISH_REASON_STOP
        stopped = await end(eos_token_ids=EOS, stop_token_ids=[a], bad_words=[{"ids": both}])
        assert stopped.token_ids == [a] and stopped.last.stop_token_id == a
        ended = await end(eos_token_ids=[4], bad_words=[{"ids": [b]}, {"ids": both[-1:]}])
        assert ended.token_ids == [a, 4] and ended.last.finish_reason == FINISH_REASON_EOS
        nothing = await end(eos_token_ids=EOS, allowed_token_ids=[b])
        assert nothing.refusal.code == INVALID and "none" in nothing.refusal.message
        cut = await session.generate(PROMPT, 3, grammar=Grammar(regex="[0-9]{30}"), eos_token_ids=EOS)
        assert cut.last.finish_reason == FINISH_REASON_LENGTH and re.fullmatch("[0-9]{3,30}", text(cut))
        empty = await session.generate(PROMPT, 3, grammar=Grammar(regex=""))
        assert empty.refusal.code == INVALID and empty.refusal.field == "grammar.regex"


HOSTILE = {
    "endless patterns": (SLOW, "grammar.json_schema"),
    "exponential": (Grammar(regex="(.*)" * 2000), "grammar.regex"),
    "a million times": (Grammar(regex="a{1000000}"), "grammar.regex"),
    "a million million times": (Grammar(regex="((a{1000}){1000}){1000}"), "grammar.regex"),
    "1 MB": (Grammar(json_schema=json.dumps({"enum": ["x" * 100] * 10_000})), "grammar.json_schema"),
    "deep": (Grammar(json_schema='{"items":' * 3000 + "{}" + "}" * 3000), "grammar.json_schema"),
    "deep expression": (Grammar(regex="(" * 3000 + ")" * 3000), "grammar.regex"),
    "deep rules": (Grammar(ebnf="root ::= " + "(" * 3000 + '"a"' + ")" * 3000), "grammar.ebnf"),
    "endless recursion": (Grammar(json_schema='{"$ref": "#"}'), "grammar.json_schema"),
    "no JSON": (Grammar(json_schema='{"type":'), "grammar.json_schema"),
    "no schema": (Grammar(json_schema="[1]"), "grammar.json_schema"),
    "no expression": (Grammar(regex="(("), "grammar.regex"),
    "look-ahead": (Grammar(regex="(?=a)b"), "grammar.regex"),
    "no grammar": (Grammar(ebnf="nonsense"), "grammar.ebnf"),
    "uniqueItems": (Grammar(json_schema='{"uniqueItems": true}'), "grammar.json_schema"),
    "lenient": (Grammar(json_schema='{"x-guidance": {"lenient": true}, "contains": {}}'), "grammar.json_schema"),
    "remote": (Grammar(json_schema='{"$ref": "http://127.0.0.1:9/x"}'), "grammar.json_schema"),
    "format": (Grammar(json_schema='{"format": "ipv7", "type": "string"}'), "grammar.json_schema"),
    "twice the same name": (Grammar(json_schema='{"type": "object", "minProperties": 2}'), "grammar.json_schema"),
    "false": (Grammar(json_schema="false"), "grammar.json_schema"),
    "no choice": (Grammar(choice=Choice()), "grammar.choice"),
    "no form": (Grammar(), "grammar"),
}


async def test_hostile_grammars_are_refused_by_name_while_others_go_on(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        unaware = await session.generate(prompt(1), 200)
        neighbour = await session.submit(prompt(1), 200)
        await neighbour.started.wait()
        refused = {name: await session.submit(PROMPT, 9, grammar=one) for name, (one, _) in HOSTILE.items()}
        rounds = 0
        while not refused["endless patterns"].done.is_set():
            if neighbour.done.is_set():
                assert neighbour.token_ids == unaware.token_ids
                neighbour = await session.submit(prompt(1), 200)
            count = len(neighbour.token_ids)
            await session.report(lambda _, count=count, stream=neighbour: len(stream.token_ids) > count)
            rounds += 1
        assert rounds > 10, "the neighbour stood still"
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in refused.values()))
        for name, (_, field) in HOSTILE.items():
            refusal = refused[name].refusal
            assert refusal is not None, f"{name}: {refused[name].last}"
            assert (refusal.code, refusal.field) == (INVALID, field), name
            assert field in refusal.message and len(refusal.message) < 1000, name
        assert "uniqueItems" in refused["uniqueItems"].refusal.message
        assert "ipv7" in refused["format"].refusal.message


async def test_an_abort_wins_over_its_request_that_compiles(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        fresh = json.loads(SLOW.json_schema)
        slow = Grammar(json_schema=json.dumps({**fresh, "title": "another"}))
        aborted = await session.submit(PROMPT, 9, grammar=slow)
        load = await session.report(lambda report: report.last_submit_id == 1)
        assert load.load.waiting >= 1
        await session.abort(1)
        await asyncio.wait_for(aborted.done.wait(), 10)
        assert aborted.last.finish_reason == FINISH_REASON_ABORTED
        again = await session.generate(PROMPT, 9, grammar=Grammar(regex="ab"), eos_token_ids=EOS, id=1)
        assert text(again) == "ab"
        same = [await session.submit(PROMPT, 9, grammar=slow, id=7), await session.submit(PROMPT, 9, id=7)]
        await asyncio.wait_for(same[1].done.wait(), 10)
        assert same[1].refusal.reason == "ALREADY_EXISTS"


async def test_a_session_that_ends_takes_its_compiling_requests_along(worker_of, session_to):
    worker = worker_of(*POOL)
    async with session_to(worker, "stays") as watcher:
        async with session_to(worker, "leaves") as session:
            slow = Grammar(json_schema=json.dumps({**json.loads(SLOW.json_schema), "title": "a third"}))
            await session.submit(PROMPT, 9, grammar=slow)
            await session.report(lambda report: report.last_submit_id == 1)
        assert (await watcher.idle()).waiting == 0


async def test_requests_without_a_grammar_are_the_same_to_the_bit_beside_structured_ones(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        alone = await session.generate(prompt(70), 24, SAMPLED, logprobs=3)
        grammar = Grammar(regex="[a-z ]{200}")
        others = [await session.submit(prompt(at, 20), 30, grammar=grammar) for at in (71, 72, 73)]
        await asyncio.gather(*(stream.started.wait() for stream in others))
        beside = await session.generate(prompt(70), 24, SAMPLED, logprobs=3)
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in others))
    assert beside.token_ids == alone.token_ids and len(alone.logprobs) == 24
    assert beside.logprobs == alone.logprobs
