"""Random requests put through both fronts' translations: one verdict, and for accepted ones the same EngineRequest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from headway.core.constraints import Grammar
from headway.core.errors import HeadwayError
from headway.core.sampling import BOUNDS
from headway.core.wire import grammar_to_proto
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.router.fronts.inference_requests import from_chat, from_generate
from headway.router.fronts.openai.requests import read_chat, read_completion
from headway.router.handler import RequestHandler
from headway.router.types import EngineRequest
from headway.router.validation import limits
from headway.router.validation.request import UserRequest
from headway.tests.fronts.support.scripted_replicas import (
    RecordingObserver,
    ScriptedCatalogue,
    ScriptedDispatcher,
    demo_model,
)

Verdict = tuple[str, str, str] | EngineRequest

# Requests that are accepted, of which half then get one or two values at or over a bound.
sampling = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1)},
    optional={
        "temperature": st.floats(0, 100),
        "top_p": st.floats(0, 1, exclude_min=True, width=32),
        "top_k": st.integers(0, 2**31 - 1),
        "min_p": st.floats(0, 1),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.1, 100),
    },
)
common = st.fixed_dictionaries(
    {"sampling": sampling, "max_new_tokens": st.integers(1, 20)},
    optional={
        "model": st.sampled_from(["demo", ""]),
        "stop": st.lists(st.text(min_size=1, max_size=5), max_size=3),
        "stop_token_ids": st.lists(st.integers(0, 4095), max_size=5),
        "include_stop": st.booleans(),
        "ignore_eos": st.booleans(),
        "want_ids": st.booleans(),
        "skip_special": st.booleans(),
        "salt": st.text(max_size=5),
        "bypass": st.booleans(),
        "n": st.integers(1, 3),
        "priority": st.integers(-1000, 1000),
        "min_new_tokens": st.just(1),
        "logit_bias": st.dictionaries(st.integers(0, 4095), st.floats(-100, 100), max_size=3),
        "allowed": st.lists(st.integers(0, 4095), min_size=1, max_size=5),
        "bad_words": st.lists(st.text("ab é", min_size=1, max_size=5).filter(str.strip), max_size=3),
        "logprobs": st.integers(0, 20),
        "prompt_logprobs": st.integers(0, 20),
    },
)
GRAMMARS: list[Grammar] = [
    Grammar("json_object"),
    Grammar("json_schema", '{"type": "object", "properties": {"b": {}, "a": {}}}'),
    Grammar("json_schema", "true"),
    Grammar("json_schema", "5"),
    Grammar("json_schema", "{"),
    Grammar("json_schema", '{"a":' + "[" * 90_000),
    Grammar("json_schema", '{"title": "' + "x" * limits.MAX_SCHEMA_BYTES + '"}'),
    Grammar("regex", "a+"),
    Grammar("regex", ""),
    Grammar("regex", "a" * limits.MAX_REGEX),
    Grammar("regex", "a" * (limits.MAX_REGEX + 1)),
    Grammar("ebnf", 'root ::= "é"'),
    Grammar("ebnf", "é" * (limits.MAX_SCHEMA_BYTES // 2 + 1)),
    Grammar("choice", choices=("yes", "no")),
    Grammar("choice"),
    Grammar("choice", choices=("yes", "")),
    Grammar("choice", choices=("x",) * (limits.MAX_CHOICES + 1)),
    Grammar("choice", choices=("x", "x" * (limits.MAX_CHOICE + 1))),
]
EDGES: dict[str, list[Any]] = {
    "temperature": [-1.0, -0.0, 1e-50, 100.0, 100.000001, 100.5, 1e300],
    "top_p": [0.0, 1e-50, 1.0, 1.00000001, 1.0000001, 2.0],
    "top_k": [2**31 - 1, 2**31, 2**32 - 1],
    "min_p": [-1e-50, 1.5],
    "presence_penalty": [-2.0, -2.1, 2.00000001],
    "frequency_penalty": [2.1],
    "repetition_penalty": [0.0, 1e-46, 101.0],
    "max_new_tokens": [0, 230, 250, 255, 256, 2**32 - 1],
    "model": ["nobody"],
    "stop": [[""], ["x" * 256], ["x", "y" * 257], ["x"] * 16, ["x"] * 17],
    "stop_token_ids": [[4095], [1, 4096], [2**32 - 1], [1] * 64, [1] * 65],
    "salt": ["s" * 256, "s" * 257],
    "n": [0, 64, 65],
    "priority": [-1001, 1001],
    "min_new_tokens": [20, 21, 2**32 - 1],
    "logit_bias": [{4096: 1.0}, {1: 100.5}, {1: -100.00000001}, {1: 1e300}, dict.fromkeys(range(1025), 1.0)],
    "allowed": [[4096], [1] * 2000],
    "bad_words": [["a", " "], ["a"] * 257, ["b", "a" * 257]],
    "logprobs": [21],
    "prompt_logprobs": [21],
    "grammar": GRAMMARS,
    "ignore_eos": [True],
}
edges = st.lists(st.sampled_from([(name, value) for name, values in EDGES.items() for value in values]), max_size=2)
prompts = (
    st.text(min_size=1, max_size=30)
    | st.lists(st.integers(0, 4095), min_size=1, max_size=20)
    | st.sampled_from(["", "word " * 300, [], [7] * 255, [7] * 256, [1, 4096]])
)
roles = st.sampled_from(["system", "user", "assistant"])
talks = st.lists(st.tuples(roles, st.text(max_size=10)), min_size=1, max_size=4) | st.sampled_from(
    [[], [("user", "x"), ("robot", "x")], [("", "x")]]
)
template_args = st.dictionaries(st.sampled_from(["style", "thinking"]), st.booleans() | st.text(max_size=3)) | st.just(
    {"messages": "x"}
)


def at_the_edge(fields: dict[str, Any], changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """The request with some of its values replaced."""
    fields = {**fields, "sampling": dict(fields["sampling"])}
    for name, value in changes:
        (fields["sampling"] if name in BOUNDS else fields)[name] = value
    return fields


def to_proto(fields: dict[str, Any], prompt: pb.Prompt | None) -> pb.GenerateRequest:
    message = pb.GenerateRequest(
        request_id="same",
        model=fields.get("model", ""),
        prompt=prompt,
        sampling=fields["sampling"],
        stopping=pb.Stopping(
            max_new_tokens=fields["max_new_tokens"],
            stop_strings=fields.get("stop", []),
            stop_token_ids=fields.get("stop_token_ids", []),
            include_stop_string=fields.get("include_stop"),
            ignore_eos=fields.get("ignore_eos"),
            min_new_tokens=fields.get("min_new_tokens"),
        ),
        output=pb.Output(
            token_ids=fields.get("want_ids"),
            skip_special_tokens=fields.get("skip_special"),
            logprobs=fields.get("logprobs"),
            prompt_logprobs=fields.get("prompt_logprobs"),
        ),
        cache=pb.Cache(salt=fields.get("salt", ""), bypass=fields.get("bypass")),
        n=fields.get("n"),
        priority=fields.get("priority"),
        constraints=pb.Constraints(
            logit_bias=fields.get("logit_bias", {}),
            allowed_token_ids=fields.get("allowed", []),
            bad_words=fields.get("bad_words", []),
            grammar=grammar_to_proto(fields["grammar"]) if "grammar" in fields else None,
        ),
    )
    # Over the wire and back: what a server sees.
    return pb.GenerateRequest.FromString(message.SerializeToString())


HTTP_NAMES = {
    "stop": "stop", "stop_token_ids": "stop_token_ids", "include_stop": "include_stop_str_in_output",
    "ignore_eos": "ignore_eos", "want_ids": "return_token_ids", "skip_special": "skip_special_tokens",
    "salt": "cache_salt", "model": "model", "max_new_tokens": "max_tokens", "bypass": "cache_bypass", "n": "n",
    "priority": "priority", "min_new_tokens": "min_tokens", "logit_bias": "logit_bias", "bad_words": "bad_words",
    "allowed": "allowed_token_ids", "logprobs": "logprobs", "prompt_logprobs": "prompt_logprobs",
}  # fmt: skip


def structured(grammar: Grammar) -> dict[str, Any]:
    """vLLM's structured_outputs of the same grammar."""
    match grammar.kind:
        case "json_object":
            return {"json_object": True}
        case "choice":
            return {"choice": list(grammar.choices)}
        case _:
            return {{"json_schema": "json", "ebnf": "grammar"}.get(grammar.kind, grammar.kind): grammar.text}


def to_json(fields: dict[str, Any], **inputs: Any) -> bytes:
    body = {HTTP_NAMES[name]: value for name, value in fields.items() if name in HTTP_NAMES}
    if "grammar" in fields:
        body["structured_outputs"] = structured(fields["grammar"])
    if "messages" in inputs and "logprobs" in body:
        body |= {"logprobs": True, "top_logprobs": body["logprobs"]}
    return json.dumps({**body, **fields["sampling"], **inputs}).encode()


class Judge:
    """The real handler over a catalogue of one model; the verdict is an error or the request that was dispatched."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.dispatcher = ScriptedDispatcher()
        self.handler = RequestHandler(ScriptedCatalogue([demo_model()]), self.dispatcher, RecordingObserver())

    def verdict(self, request: UserRequest) -> Verdict:
        return self.loop.run_until_complete(self._verdict(request))

    def read(self, reading: Any) -> UserRequest:
        request: UserRequest = self.loop.run_until_complete(reading)[0]
        return request

    async def _verdict(self, request: UserRequest) -> Verdict:
        try:
            async for _ in self.handler.run(request, front="test", method="test"):
                pass
        except HeadwayError as error:
            said = error.message.removeprefix(error.field)
            for path in GRAMMAR_PATHS:  # what a field cannot be combined with, by its front's name
                said = said.replace(f"with generate.{path},", "with grammar,").replace(f"with {path},", "with grammar,")
            return type(error).__name__, canonical(error.field), said
        requests, self.dispatcher.requests = self.dispatcher.requests, []
        assert [one.sequence for one in requests] == list(range(request.n))
        assert not any(one.prompt_logprobs for one in requests[1:])
        return requests[0]


def canonical(field: str) -> str:
    """A field by its HTTP name, whichever front named it."""
    path, bracket, tail = field.removeprefix("generate.").partition("[")
    last = {
        "prompt.text": "prompt",
        "prompt.token_ids.ids": "prompt",
        "stopping.max_new_tokens": "max_tokens",
        "stopping.stop_strings": "stop",
        "stopping.min_new_tokens": "min_tokens",
        "cache.salt": "cache_salt",
        "output.logprobs": "logprobs",
        "output.prompt_logprobs": "prompt_logprobs",
        "top_logprobs": "logprobs",
    }.get(path, path.replace("template_args", "chat_template_kwargs"))
    if path.endswith(GRAMMAR_PATHS):
        last = "grammar"
    for section in ("sampling.", "stopping.", "constraints."):
        last = last.removeprefix(section)
    return last + bracket + tail


GRAMMAR_PATHS = (
    "constraints.grammar.json_schema", "constraints.grammar.regex", "constraints.grammar.ebnf",
    "constraints.grammar.choice.texts", "constraints.grammar.json_object",
    "structured_outputs.json", "structured_outputs.regex", "structured_outputs.grammar",
    "structured_outputs.choice", "structured_outputs.json_object",
)  # fmt: skip


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.loop.close()


def note(verdict: Verdict) -> None:
    event("accepted" if isinstance(verdict, EngineRequest) else verdict[0])


def same_output(first: UserRequest, second: UserRequest) -> None:
    """What the engine is not told, but the caller's output depends on."""
    for name in ("n", "stop_strings", "include_stop_string", "want_text", "want_token_ids", "skip_special_tokens"):
        assert getattr(first, name) == getattr(second, name), name


@settings(deadline=None, max_examples=300)
@given(fields=st.builds(at_the_edge, common, st.just([]) | edges), prompt=prompts)
def test_prompts(judge: Judge, fields: dict[str, Any], prompt: str | list[int]) -> None:
    form = pb.Prompt(text=prompt) if isinstance(prompt, str) else pb.Prompt(token_ids=pb.TokenIds(ids=prompt))
    by_grpc = from_generate(to_proto(fields, form))
    by_http = judge.read(read_completion(to_json(fields, prompt=prompt), "same"))
    first, second = judge.verdict(by_grpc), judge.verdict(by_http)
    note(first)
    assert first == second
    same_output(by_grpc, by_http)
    assert not isinstance(first, EngineRequest) or msgspec.json.encode(first) == msgspec.json.encode(second)


@settings(deadline=None, max_examples=200)
@given(fields=st.builds(at_the_edge, common, st.just([]) | edges), talk=talks, args=template_args)
def test_conversations(judge: Judge, fields: dict[str, Any], talk: list[tuple[str, str]], args: dict[str, Any]) -> None:
    request = pb.ChatRequest(
        generate=to_proto(fields, None), messages=[pb.ChatMessage(role=role, content=text) for role, text in talk]
    )
    request.template_args.update(args)
    by_grpc = from_chat(pb.ChatRequest.FromString(request.SerializeToString()))
    body = to_json(fields, messages=[{"role": role, "content": text} for role, text in talk], chat_template_kwargs=args)
    by_http = judge.read(read_chat(body, "same"))
    first, second = judge.verdict(by_grpc), judge.verdict(by_http)
    note(first)
    assert first == second
    same_output(by_grpc, by_http)
