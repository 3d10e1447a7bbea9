"""A request gets the same tokens whether its prefix was cached, it was preempted, or it ran among others."""

import asyncio

import pytest
from engine_client import GREEDY

from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH

SHAPES = {"tp1": (), "tp2": ("--tp", "2"), "pp2": ("--pp", "2")}
PROMPT = [(7 * at * at + 13 * at) % 3000 + 300 for at in range(70)]
NEW = 16
POOL = ("--pages", "20", "--token-budget", "64", "--no-admission-forecast")
WAYS = {"greedy": GREEDY, "sampled": SamplingParams(temperature=1.0, top_p=0.95, top_k=50, seed=42)}


def others(count: int) -> list[list[int]]:
    return [[(31 * at + 101 * which) % 3000 + 300 for at in range(20 + 3 * which)] for which in range(count)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_cold_warm_and_among_others(worker_of, session_to, shape, way):
    worker = worker_of(*SHAPES[shape], *POOL)
    sampling = WAYS[way]
    root = way.encode().ljust(16, b".")
    async with session_to(worker) as session:
        cold = await session.generate(PROMPT, NEW, sampling, cache_root=root)
        warm = await session.generate(PROMPT, NEW, sampling, cache_root=root)
        bypass = await session.generate(PROMPT, NEW, sampling, cache_root=root, cache_bypass=True)
        crowd = [await session.submit(tokens, NEW, sampling) for tokens in others(15)]
        among = await session.generate(PROMPT, NEW, sampling, cache_root=b"unseen".ljust(16, b"."))
        await asyncio.gather(*(stream.done.wait() for stream in crowd))
    assert cold.cached_tokens == 0 and bypass.cached_tokens == 0 and warm.cached_tokens == 64
    assert len(cold.token_ids) == NEW and cold.last.finish_reason == FINISH_REASON_LENGTH
    assert warm.token_ids == bypass.token_ids == among.token_ids == cold.token_ids


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_after_preemption(worker_of, session_to, shape, way):
    """The pool holds the prompts of four of these eight requests, but not what they grow to."""
    worker = worker_of(*SHAPES[shape], *POOL)
    prompts = [(tokens * 3)[:58] for tokens in others(8)]
    async with session_to(worker) as session:
        expected = [await session.generate(prompt, 24, WAYS[way]) for prompt in prompts]
        before = (await session.idle()).totals.preemptions
        streams = [await session.submit(prompt, 24, WAYS[way]) for prompt in prompts]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams))
        load = await session.idle()
    assert sum(stream.last.preemptions for stream in streams) == load.totals.preemptions - before > 0
    assert [stream.token_ids for stream in streams] == [stream.token_ids for stream in expected]
    assert load.used_pages == 0


async def test_continuation_elsewhere_samples_what_would_have_come(worker_of, session_to):
    """What the router does when a replica dies: prompt and delivered tokens to another one."""
    worker = worker_of(*POOL)
    sampling = SamplingParams(temperature=1.0, seed=9, frequency_penalty=0.5, repetition_penalty=1.1)
    async with session_to(worker) as session:
        whole = await session.generate(PROMPT, NEW, sampling)
        for delivered in (1, 11, NEW - 1):
            known = PROMPT + whole.token_ids[:delivered]
            rest = await session.generate(known, NEW, sampling, delivered=delivered)
            assert whole.token_ids[:delivered] + rest.token_ids == whole.token_ids
