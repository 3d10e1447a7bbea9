"""Embeddings over a session: those of transformers, in several chunks and among requests that generate."""

import asyncio
from functools import cache

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from headway.core.sampling import SamplingParams
from headway.demo import DEMO_DIR
from headway.proto.headway.v1.engine_pb2 import TokenSequence
from headway.proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_EMBEDDED, Grammar

SHAPES = {"tp1": (), "tp2": ("--tp", "2"), "pp2": ("--pp", "2")}
POOL = ("--pages", "20", "--token-budget", "64", "--no-admission-forecast")  # as in test_same_tokens: the same workers
TOLERANCE = 5e-5
SAMPLED = SamplingParams(temperature=1.0, top_p=0.95, seed=42)


def prompt(which: int, length: int) -> list[int]:
    return [(31 * at + 101 * which + at * at) % 3000 + 300 for at in range(length)]


@pytest.fixture(scope="module")
def states():
    """Final hidden states of the demo model, [tokens, hidden]."""
    model = LlamaForCausalLM.from_pretrained(DEMO_DIR, dtype=torch.float32).eval()

    @cache
    @torch.no_grad()
    def get(*tokens: int) -> np.ndarray:
        return model.model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0].double().numpy()

    return get


@pytest.mark.parametrize("shape", SHAPES)
async def test_last_and_mean_among_others(worker_of, session_to, states, shape):
    worker = worker_of(*SHAPES[shape], *POOL, "--dtype", "float32")
    asked = [
        (prompt(which, length), pooling) for which, length in enumerate((1, 63, 64, 150, 200)) for pooling in (1, 2)
    ]
    talks = [prompt(which, 20) for which in range(20, 26)]
    root = b"embeddings".ljust(16, b".")
    async with session_to(worker) as session:
        alone = [await session.generate(tokens, 16, SAMPLED, cache_bypass=True) for tokens in talks]
        crowd = [await session.submit(tokens, 16, SAMPLED, cache_bypass=True) for tokens in talks]
        streams = [await session.submit(tokens, 0, cache_root=root, pooling=pooling) for tokens, pooling in asked]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in (*streams, *crowd)))
        assert [stream.token_ids for stream in crowd] == [stream.token_ids for stream in alone]
        again = [
            await session.generate(asked[-1][0], 0, cache_root=root[::-1], pooling=pooling)
            for pooling in (POOLING_MEAN, POOLING_LAST)
        ]
        load = await session.idle()
    for (tokens, pooling), stream in [*zip(asked, streams, strict=True), *zip(asked[:-3:-1], again, strict=True)]:
        assert stream.last is not None and stream.last.finish_reason == FINISH_REASON_EMBEDDED
        assert not stream.token_ids
        found = np.frombuffer(stream.last.embedding, "<f4")
        expected = states(*tokens).mean(0) if pooling == POOLING_MEAN else states(*tokens)[-1]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert [stream.cached_tokens for stream in again] == [0, 192], (
        "a mean reads no cache, and leaves its pages to others"
    )
    assert load.used_pages == load.waiting_uncached_tokens == 0


async def test_what_no_embedding_can_be(worker_of, session_to):
    worker = worker_of(*POOL, "--dtype", "float32")
    async with session_to(worker) as session:
        for count, fields, field in (
            (1, {"pooling": POOLING_LAST}, "max_new_tokens"),
            (0, {"pooling": 7}, "pooling"),
            (0, {"pooling": POOLING_MEAN, "logprobs": 1}, "logprobs"),
            (0, {"pooling": POOLING_LAST, "prompt_logprobs": 0}, "prompt_logprobs"),
            (0, {"pooling": POOLING_LAST, "grammar": Grammar(regex="a+")}, "grammar"),
            (0, {"pooling": POOLING_LAST, "min_new_tokens": 1}, "min_new_tokens"),
            (0, {"pooling": POOLING_LAST, "logit_bias": {5: 1.0}}, "logit_bias"),
            (0, {"pooling": POOLING_LAST, "allowed_token_ids": [5]}, "allowed_token_ids"),
            (0, {"pooling": POOLING_LAST, "bad_words": [TokenSequence(ids=[5])]}, "bad_words"),
            (0, {"pooling": POOLING_LAST, "eos_token_ids": [5]}, "eos_token_ids"),
            (0, {"pooling": POOLING_LAST, "stop_token_ids": [5]}, "stop_token_ids"),
            (0, {"pooling": POOLING_LAST, "delivered": 1}, "max_new_tokens"),
            (0, {}, "max_new_tokens"),
        ):
            stream = await session.generate([5, 6, 7], count, **fields)
            assert stream.refusal is not None and stream.refusal.field == field
        whole = await session.generate(prompt(1, 320), 0, pooling=POOLING_LAST)
        assert whole.last is not None and len(whole.last.embedding) == 4 * 256
        over = await session.generate(prompt(1, 321), 0, pooling=POOLING_LAST)
        assert over.refusal is not None and over.refusal.reason == "CONTEXT_TOO_LONG"
