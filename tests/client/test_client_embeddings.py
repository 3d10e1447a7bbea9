"""`embed` of both clients: what the server is told, and what its answer becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headway.client import AsyncHeadway, Embeddings, Headway, InvalidRequest, Unavailable
from headway.proto.headway.v1 import inference_pb2 as pb
from headway.proto.headway.v1 import pooling_pb2
from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread

Embed = Callable[..., Embeddings]


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest, server: ServerThread) -> Embed:
    """The method of either client."""

    def by_sync(*inputs: Any, **options: Any) -> Embeddings:
        with Headway(server.address) as headway:
            return headway.embed(*inputs, **options)

    async def by_async(*inputs: Any, **options: Any) -> Embeddings:
        async with AsyncHeadway(server.address) as headway:
            return await headway.embed(*inputs, **options)

    return by_sync if request.param == "sync" else lambda *inputs, **options: asyncio.run(by_async(*inputs, **options))


@pytest.mark.parametrize(
    ("inputs", "vectors"),
    [
        ("abc", [[3.0, 0.0]]),
        (["a", "bc"], [[1.0, 0.0], [2.0, 1.0]]),
        ([5, 6, 7], [[3.0, 0.0]]),
        ([[5, 6], "abc", (7,)], [[2.0, 0.0], [3.0, 1.0], [1.0, 2.0]]),
        ([], []),
    ],
)
def test_every_form_of_input(embed: Embed, inputs: Any, vectors: list[list[float]]) -> None:
    found = embed(inputs)
    assert (found.vectors, len(found), found.model_revision) == (vectors, len(vectors), "r1")
    assert found.usage.prompt_tokens == sum(int(vector[0]) for vector in vectors)


def test_options_reach_the_server(embed: Embed, servicer: ScriptedInference) -> None:
    embed("a")
    embed(
        "a", model="m", request_id="r", pooling="mean", normalize=False, dimensions=2, cache_salt="s", cache_bypass=True
    )
    plain, full = servicer.embeds
    assert plain == pb.EmbedRequest(inputs=[pb.Prompt(text="a")])
    assert full == pb.EmbedRequest(
        request_id="r",
        model="m",
        inputs=[pb.Prompt(text="a")],
        pooling=pooling_pb2.POOLING_MEAN,
        normalize=False,
        dimensions=2,
        cache=pb.Cache(salt="s", bypass=True),
    )


@pytest.mark.parametrize(
    ("inputs", "options", "field"),
    [
        (["a", "\udc80"], {}, "inputs[1].text"),
        ([[1], [-1]], {}, "inputs[1].token_ids"),
        ([[1], [2**32]], {}, "inputs[1].token_ids"),
        (["a"], {"pooling": "max"}, "pooling"),
        (["a"], {"dimensions": -1}, "dimensions"),
    ],
)
def test_what_no_message_can_hold(embed: Embed, inputs: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embed(inputs, **options)
    assert caught.value.field == field


def test_unavailable_is_tried_again_and_unknown_options_are_told(embed: Embed, servicer: ScriptedInference) -> None:
    servicer.unary_errors = [Unavailable("not yet", retry_after_s=0.01)]
    assert len(embed("a")) == 1
    with pytest.raises(TypeError, match="unknown option 'size'"):
        embed("a", size=3)
