"""The Python client against the router itself: all that it can ask arrives, and all that is answered comes back."""

from __future__ import annotations

import pytest

from headway.client import AsyncHeadway, InvalidRequest, Regex
from headway.core.constraints import Grammar
from headway.tests.fronts.support.serving import Fronts
from headway.tests.fronts.test_logprobs import CRAB, answering
from headway.tests.fronts.test_openai_front import ids_of


async def test_what_the_client_asks_reaches_the_engine_and_its_answer_comes_back(fronts: Fronts) -> None:
    answering(fronts, CRAB)
    async with AsyncHeadway(fronts.grpc_address) as client:
        answer = await client.generate(
            ids_of("def f"), n=2, priority=-3, max_new_tokens=8, min_new_tokens=1, logprobs=1, prompt_logprobs=2,
            logit_bias={5: 1.5}, allowed_token_ids=[7, 5], bad_words=["bad"], cache_bypass=True, return_token_ids=True,
        )  # fmt: skip
        structured = await client.generate("p", grammar=Regex("[a-z]+"), max_new_tokens=8)
    first, second, third = fronts.dispatcher.requests
    assert (first.sequence, second.sequence, first.priority, first.cache_bypass) == (0, 1, -3, True)
    assert (first.rules.logit_bias, first.rules.allowed, first.rules.min_new_tokens) == (((5, 1.5),), (5, 7), 1)
    assert tuple(ids_of(" bad")) in first.rules.bad_words
    assert third.grammar == Grammar("regex", "[a-z]+") and structured.text == "🦀"

    assert [(one.text, one.token_ids) for one in answer.sequences] == [("🦀", CRAB)] * 2
    for one in answer.sequences:
        assert [place.token_id for place in one.logprobs] == CRAB
        assert b"".join(place.utf8 for place in one.logprobs).decode() == "🦀"
        assert [(place.logprob, place.top[0].token_id) for place in one.logprobs] == [(-0.5, 300)] * len(CRAB)
    assert [place.token_id for place in answer.prompt_logprobs] == ids_of("def f")[1:]
    assert [len(place.top) for place in answer.prompt_logprobs] == [2] * len(answer.prompt_logprobs)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"n": 0}, "n"),
        ({"logprobs": 21}, "output.logprobs"),
        ({"choice": []}, "constraints.grammar.choice.texts"),
        ({"json_schema": "{"}, "constraints.grammar.json_schema"),
        ({"regex": "a", "min_new_tokens": 1}, "stopping.min_new_tokens"),
        ({"logit_bias": {1: float("nan")}}, "constraints.logit_bias[1]"),
    ],
)
async def test_what_the_router_refuses_is_named_as_the_client_names_it(
    fronts: Fronts, options: dict[str, object], field: str
) -> None:
    async with AsyncHeadway(fronts.grpc_address) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.generate("p", **options)  # type: ignore[arg-type]
    assert caught.value.field == field
