"""What the fronts accept, the engine does: every request feature over gRPC and over HTTP, through a real router process
and a real worker of the demo model, with transformers as the judge where it has an opinion."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import jsonschema
import numpy as np
import pytest
import pytest_asyncio
import torch
import transformers
from processes import RouterProcess, WorkerProcess

from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import sampling_pb2
from headway.proto.headway.v1.inference_pb2_grpc import InferenceServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEMO = Path(__file__).parents[2] / "demo" / "headway-demo"
PROMPT = [300 + 7 * number % 900 for number in range(40)]
NEW = 12
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "size": {"enum": [1, 2, 3]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}


@dataclass
class Said:
    """One sequence of an answer. `logprobs`: (own id, own value, {id: value} of the likeliest) for each token."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: str = ""
    logprobs: list[tuple[int, float, dict[int, float]]] = field(default_factory=list)


@dataclass
class Answer:
    sequences: list[Said]
    cached_tokens: int = 0
    prompt_logprobs: list[tuple[int, float]] = field(default_factory=list)


class Grpc:
    """Asks over gRPC, in the names that `ask` takes."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)

    async def ask(self, prompt: list[int] = PROMPT, time_s: float | None = None, **asked: Any) -> Answer:
        request = pb.GenerateRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=prompt)))
        request.output.token_ids = True
        request.sampling.temperature = 0.0
        for name, value in ({"max_new_tokens": NEW} | asked).items():
            self._set(request, name, value)
        answer = Answer([Said() for _ in range(asked.get("n", 1))])
        async for message in InferenceServiceStub(self.channel).Generate(request, timeout=time_s):  # type: ignore[attr-defined]
            self._take(answer, message)
        return answer

    def _set(self, request: pb.GenerateRequest, name: str, value: Any) -> None:
        sections = (request, request.sampling, request.stopping, request.output, request.constraints)
        if name == "grammar":
            kind, what = value
            grammar = request.constraints.grammar
            if kind == "choice":
                grammar.choice.texts.extend(what)
            elif kind == "json_object":
                grammar.json_object.SetInParent()
            else:
                setattr(grammar, kind, what)
        elif name == "cache_bypass":
            request.cache.bypass = value
        elif name == "logit_bias":
            request.constraints.logit_bias.update(value)
        else:
            section = next(one for one in sections if name in one.DESCRIPTOR.fields_by_name)
            if isinstance(value, list):
                getattr(section, name).extend(value)
            else:
                setattr(section, name, value)

    def _take(self, answer: Answer, message: pb.GenerateResponse) -> None:
        kind = message.WhichOneof("event")
        if kind == "started":
            answer.cached_tokens = message.started.cached_tokens
            answer.prompt_logprobs = [
                (place.token.token_id, place.token.logprob) for place in message.started.prompt_logprobs
            ]
        elif kind == "delta":
            said = answer.sequences[message.delta.index]
            said.ids += message.delta.token_ids
            said.text += message.delta.text
            said.logprobs += [
                (place.token.token_id, place.token.logprob, {top.token_id: top.logprob for top in place.top})
                for place in message.delta.logprobs
            ]
        elif kind == "finished":
            name = sampling_pb2.FinishReason.Name(message.finished.reason).removeprefix("FINISH_REASON_").lower()
            answer.sequences[message.finished.index].finish = "stop" if name == "eos" else name


class Http:
    """Asks /v1/completions, in the same names."""

    NAMES = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "stop_strings": "stop"}  # noqa: RUF012
    FORMS = {"json_schema": "json", "regex": "regex", "choice": "choice", "ebnf": "grammar"}  # noqa: RUF012

    def __init__(self, address: str) -> None:
        self.client = httpx.AsyncClient(base_url=address, timeout=60)

    async def ask(self, prompt: list[int] = PROMPT, time_s: float | None = None, **asked: Any) -> Answer:
        body: dict[str, Any] = {"prompt": prompt, "temperature": 0.0, "max_tokens": NEW, "return_token_ids": True}
        for name, value in asked.items():
            if name == "grammar":
                kind, what = value
                form = {"json_object": True} if kind == "json_object" else {self.FORMS[kind]: what}
                body["structured_outputs"] = form
            else:
                body[self.NAMES.get(name, name)] = value
        headers = {} if time_s is None else {"x-request-timeout": str(time_s)}
        got = await self.client.post("/v1/completions", json=body, headers=headers)
        if got.status_code != 200:
            raise AssertionError(f"{got.status_code}: {got.text}")
        return self._answer(got.json())

    def _answer(self, document: dict[str, Any]) -> Answer:
        sequences = []
        for choice in sorted(document["choices"], key=lambda choice: choice["index"]):
            said = Said(choice["token_ids"], choice["text"], choice["finish_reason"])
            if (found := choice.get("logprobs")) is not None:
                said.logprobs = [(0, value, {}) for value in found["token_logprobs"]]
            sequences.append(said)
        details = document["usage"].get("prompt_tokens_details") or {}
        answer = Answer(sequences, details.get("cached_tokens", 0))
        for place, token in zip((document["choices"][0].get("prompt_logprobs") or [])[1:], PROMPT[1:], strict=False):
            answer.prompt_logprobs.append((token, place[str(token)]["logprob"]))
        return answer


@pytest.fixture(scope="module")
def oracle() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fronts() -> AsyncIterator[dict[str, Any]]:
    worker = WorkerProcess("w0", "--dtype", "float32")  # as the judge computes
    router: RouterProcess | None = None
    try:
        await worker.start()
        router = RouterProcess("--replica", worker.endpoint)
        await router.start()
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                if sum((await client.get(f"{router.http}/ready")).json()["models"].values()):
                    break
        yield {"grpc": Grpc(router.grpc), "http": Http(router.http)}
    finally:
        await worker.kill()
        if router is not None:
            await router.kill()


@pytest.fixture(params=["grpc", "http"], scope="module")
def front(request: pytest.FixtureRequest, fronts: dict[str, Any]) -> Any:
    return fronts[request.param]


def logprobs_of(oracle: Any, ids: list[int]) -> np.ndarray:
    """What follows each token, by transformers: [tokens, vocabulary]."""
    with torch.inference_mode():
        found: np.ndarray = oracle(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    return found


def greedy(oracle: Any, count: int = NEW) -> list[int]:
    ids = list(PROMPT)
    for _ in range(count):
        ids.append(int(logprobs_of(oracle, ids)[-1].argmax()))
    return ids[len(PROMPT) :]


async def test_greedy_tokens_and_their_log_probabilities_are_transformers(front: Any, oracle: Any) -> None:
    answer = await front.ask(logprobs=3, prompt_logprobs=0)
    said = answer.sequences[0]
    assert said.ids == greedy(oracle)
    wanted = logprobs_of(oracle, PROMPT + said.ids)
    own = wanted[np.arange(len(PROMPT) - 1, len(PROMPT) + NEW - 1), said.ids]
    np.testing.assert_allclose([value for _, value, _ in said.logprobs], own, atol=2e-4)
    for (token, value, top), row in zip(said.logprobs, wanted[len(PROMPT) - 1 :], strict=False):
        if top:  # /v1/completions names them by text
            assert token in top and top[token] == value
            best = np.sort(row)[::-1][:3]
            np.testing.assert_allclose(sorted(top.values(), reverse=True), best, atol=2e-4)
    assert [token for token, _ in answer.prompt_logprobs] == PROMPT[1:]
    before = wanted[np.arange(len(PROMPT) - 1), PROMPT[1:]]
    np.testing.assert_allclose([value for _, value in answer.prompt_logprobs], before, atol=2e-4)


async def test_sequences_of_one_request(fronts: dict[str, Any]) -> None:
    asked = {"n": 3, "seed": 11, "temperature": 1.0}
    first, second = [await fronts[name].ask(**asked) for name in ("grpc", "http")]
    ids = [said.ids for said in first.sequences]
    assert ids == [said.ids for said in second.sequences]
    assert len({tuple(one) for one in ids}) == 3
    alone = await fronts["grpc"].ask(seed=11, temperature=1.0)
    assert alone.sequences[0].ids == ids[0]


async def test_bias_and_allowed_ids(front: Any, oracle: Any) -> None:
    assert (await front.ask(logit_bias={777: 100.0})).sequences[0].ids == [777] * NEW
    likeliest = greedy(oracle, 1)[0]
    assert (await front.ask(logit_bias={likeliest: -100.0})).sequences[0].ids[0] != likeliest
    said = (await front.ask(allowed_token_ids=[500, 900, 901], temperature=1.0, seed=3)).sequences[0]
    assert set(said.ids) <= {500, 900, 901} and len(set(said.ids)) > 1


async def test_bad_words(front: Any) -> None:
    words = re.findall(r"\w\w+", (await front.ask(max_new_tokens=40)).sequences[0].text)
    assert words
    text = (await front.ask(max_new_tokens=40, bad_words=[words[0]])).sequences[0].text
    assert words[0] not in re.findall(r"\w+", text)


async def test_least_and_last_tokens(front: Any, oracle: Any) -> None:
    first = greedy(oracle, 1)[0]
    said = (await front.ask(stop_token_ids=[first])).sequences[0]
    assert (said.ids, said.finish) == ([first], "stop")
    said = (await front.ask(stop_token_ids=[first], min_new_tokens=5)).sequences[0]
    assert len(said.ids) >= 5 and first not in said.ids[:5]


async def test_penalties_change_what_repeats(front: Any) -> None:
    plain = (await front.ask(max_new_tokens=60)).sequences[0].ids
    for penalty in ({"repetition_penalty": 1.5}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        ids = (await front.ask(max_new_tokens=60, **penalty)).sequences[0].ids
        assert ids != plain and len(set(ids)) > len(set(plain))


@pytest.mark.parametrize(
    "grammar",
    [
        ("json_schema", json.dumps(SCHEMA)),
        ("json_object", ""),
        ("regex", "[a-f]{3}-[0-9]{2}"),
        ("choice", ["north", "south", "west"]),
        ("ebnf", 'start: "(" NUMBER ")"\nNUMBER: /[0-9]{1,4}/'),
    ],
    ids=lambda grammar: grammar[0],
)
async def test_grammars(front: Any, grammar: tuple[str, Any]) -> None:
    for sampling in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 4}):
        said = (await front.ask(grammar=grammar, max_new_tokens=200, **sampling)).sequences[0]
        kind, what = grammar
        if kind == "json_object":  # the demo model may go on for ever inside a string
            assert said.text.lstrip().startswith("{")
            continue
        assert said.finish == "stop"
        if kind == "json_schema":
            jsonschema.validate(json.loads(said.text), SCHEMA)
        elif kind == "choice":
            assert said.text in what
        else:
            assert re.fullmatch(what if kind == "regex" else r"\([0-9]{1,4}\)", said.text)


async def test_a_grammar_that_cannot_be_is_refused_by_its_name(fronts: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"constraints\.grammar\.regex") as refused:
        await fronts["grpc"].ask(grammar=("regex", "(a"))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(AssertionError, match=r"400.*structured_outputs\.regex"):
        await fronts["http"].ask(grammar=("regex", "(a"))


async def test_the_cache_is_read_unless_it_is_bypassed(front: Any) -> None:
    prompt = [1000 + number for number in range(64)]
    await front.ask(prompt)
    assert (await front.ask(prompt)).cached_tokens == 48
    assert (await front.ask(prompt, cache_bypass=True)).cached_tokens == 0


async def test_a_deadline_ends_the_request(fronts: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await fronts["grpc"].ask(max_new_tokens=900, ignore_eos=True, time_s=0.3)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(AssertionError, match=r"504.*deadline"):
        await fronts["http"].ask(max_new_tokens=900, ignore_eos=True, time_s=0.3)


async def test_priority_is_taken(front: Any, oracle: Any) -> None:
    assert (await front.ask(priority=-5)).sequences[0].ids == greedy(oracle)


async def test_more_inputs_to_embed_than_a_request_may_have_sequences(fronts: dict[str, Any]) -> None:
    inputs = [[300 + number, 5] for number in range(70)]
    got = await fronts["http"].client.post("/v1/embeddings", json={"input": inputs, "dimensions": 4})
    assert got.status_code == 200, got.text
    assert len({tuple(one["embedding"]) for one in got.json()["data"]}) == 70


async def test_echo(fronts: dict[str, Any]) -> None:
    plain = (await fronts["http"].ask()).sequences[0].text
    echoed = (await fronts["http"].ask(echo=True)).sequences[0].text
    assert echoed.endswith(plain) and len(echoed) > len(plain)
