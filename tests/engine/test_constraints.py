"""What a Submit may ask for beside tokens, through the session: rules, log probabilities, sequences, refusals."""

import asyncio

import grpc
import pytest
from engine_client import GREEDY, EngineSession, channel_to
from google.protobuf.duration_pb2 import Duration

from headway.core.errors import InvalidRequest
from headway.core.sampling import SamplingParams
from headway.kernels.native import AVAILABLE
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_ABORTED, FINISH_REASON_EOS, FINISH_REASON_LENGTH
from headway.worker.service.constraints import logprobs_from

SHAPES = {"tp1": (), "tp2": ("--tp", "2"), "pp2": ("--pp", "2")}
POOL = ("--pages", "20", "--no-admission-forecast")
PROMPT = [(7 * at * at + 13 * at) % 3000 + 300 for at in range(70)]
NEW = 12
LONG = 240  # still running when the next one has come
SAMPLED = SamplingParams(temperature=1.0, seed=42, repetition_penalty=1.2)


def words(*texts: list[int]) -> list[engine_pb2.TokenSequence]:
    return [engine_pb2.TokenSequence(ids=ids) for ids in texts]


def agree(found, expected):
    """Places agree bit for bit: by itself the engine is batch-invariant where all goes through the operations in C.
    Else within float32's rounding, and ids may swap places where values are that near."""
    assert len(found) == len(expected)
    if AVAILABLE:
        assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert one[0][0] == other[0][0] and len(one) == len(other)
        assert max(abs(a[1] - b[1]) for a, b in zip(one, other, strict=True)) < 2e-4


async def test_rules(worker_of, session_to):
    """Each rule by what it does to the tokens that came without it; one request that cannot go on ends alone."""
    worker = worker_of(*POOL)
    async with session_to(worker) as session:
        free = (await session.generate(PROMPT, NEW)).token_ids
        first, second, third = free[:3]
        assert len({first, second, third}) == 3
        many = {
            "biased": {"logit_bias": {777: 100.0}},
            "against": {"logit_bias": {first: -100.0}},
            "allowed": {"allowed_token_ids": [900, 901]},
            "word": {"bad_words": words([second, third])},
            "begun in the prompt": {"bad_words": words([PROMPT[-1], first])},
            "least": {"eos_token_ids": [first], "min_new_tokens": 5},
            "sure end": {"eos_token_ids": [777], "min_new_tokens": 5, "logit_bias": {777: 100.0}},
            "none": {"allowed_token_ids": [900], "bad_words": words([900, 900])},
        }
        streams = {name: await session.submit(PROMPT, NEW, **fields) for name, fields in many.items()}
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams.values()))
        got = {name: stream.token_ids for name, stream in streams.items()}
        assert got["biased"] == [777] * NEW and first not in got["against"] and set(got["allowed"]) <= {900, 901}
        assert got["word"][:2] == [first, second] and got["word"][2] != third
        assert got["begun in the prompt"] == free
        assert first not in got["least"][:5] and len(got["least"]) >= 5
        assert len(got["sure end"]) == 6 and streams["sure end"].last.finish_reason == FINISH_REASON_EOS
        refusal = streams["none"].refusal
        assert got["none"] == [900] and refusal.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert "after 1 tokens of output" in refusal.message and refusal.field == "constraints"
        assert (await session.idle()).used_pages == 0
        for delivered in (2, 4):  # elsewhere, what was delivered counts
            for name in ("word", "least", "sure end"):
                known = [*PROMPT, *got[name][:delivered]]
                rest = await session.generate(known, NEW, delivered=delivered, **many[name])
                assert got[name][:delivered] + rest.token_ids == got[name]


async def test_sequences_differ_and_each_is_itself_alone(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        streams = [await session.submit(PROMPT, NEW, SAMPLED, sequence=at) for at in range(4)]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams))
        assert len({tuple(stream.token_ids) for stream in streams}) == 4
        for at in (0, 3):
            assert (await session.generate(PROMPT, NEW, SAMPLED, sequence=at)).token_ids == streams[at].token_ids


@pytest.mark.parametrize("shape", SHAPES)
async def test_logprobs_of_output_and_prompt(worker_of, session_to, shape):
    """The same whatever the sampling, the cache, preemption and the company; a prompt that is scored is computed."""
    worker = worker_of(*SHAPES[shape], *POOL)
    asked = {"logprobs": 3, "prompt_logprobs": 2}
    root = {"cache_root": shape.encode().ljust(16, b".")}
    async with session_to(worker) as session:
        plain = await session.generate(PROMPT, NEW, SAMPLED, **root)
        scored = await session.generate(PROMPT, NEW, SAMPLED, **root, **asked)
        assert plain.token_ids == scored.token_ids and scored.cached_tokens == 0
        assert not plain.logprobs and plain.prompt_logprobs is None
        assert [place[0][0] for place in scored.logprobs] == scored.token_ids
        assert [place[0][0] for place in scored.prompt_logprobs] == PROMPT[1:]
        assert {len(place) for place in scored.logprobs} == {4} and {
            len(place) for place in scored.prompt_logprobs
        } == {3}
        whole = await session.generate(PROMPT + scored.token_ids, 1, **root, prompt_logprobs=3)
        agree(whole.prompt_logprobs[len(PROMPT) - 1 :], scored.logprobs)
        warm = await session.generate(PROMPT, NEW, SAMPLED, **root, logprobs=3)
        assert warm.cached_tokens == 64
        agree(warm.logprobs, scored.logprobs)
        single = await session.generate([5], 1, GREEDY, prompt_logprobs=0)
        assert single.prompt_logprobs == []
        crowd = [await session.submit(PROMPT[at:], 60, SAMPLED, **root, **asked) for at in range(0, 24, 4)]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in crowd))
        assert sum(stream.last.preemptions for stream in crowd) > 0
        for at, stream in zip(range(0, 24, 4), crowd, strict=True):
            assert len(stream.logprobs) == 60 and stream.last.finish_reason == FINISH_REASON_LENGTH
            assert [place[0][0] for place in stream.prompt_logprobs] == PROMPT[at + 1 :]
        agree(crowd[0].prompt_logprobs, scored.prompt_logprobs)
        agree(crowd[0].logprobs[:NEW], scored.logprobs)


async def test_a_deadline_ends_what_runs_and_what_waits(worker_of, session_to):
    worker = worker_of("--pages", "20", "--max-sequences", "1")
    soon, sooner, later = Duration(nanos=100_000_000), Duration(nanos=20_000_000), Duration(seconds=600)
    async with session_to(worker) as session:
        running = await session.submit(PROMPT, 250, time_left=soon)
        waiting = await session.submit(PROMPT, 250, time_left=sooner)
        over = await session.submit(PROMPT, 250, time_left=Duration())
        last = await session.submit(PROMPT, NEW, time_left=later)
        for stream in (running, waiting, over, last):
            await asyncio.wait_for(stream.done.wait(), 60)
        assert {stream.last.finish_reason for stream in (running, waiting, over)} == {FINISH_REASON_ABORTED}
        assert len(running.token_ids) < 250 and not waiting.token_ids and not over.token_ids
        assert len(last.token_ids) == NEW and (await session.idle()).used_pages == 0


async def test_the_urgent_go_first_and_preempted_ones_lose_nothing(worker_of, session_to):
    worker = worker_of("--pages", "20", "--max-sequences", "1")
    async with session_to(worker) as session:
        ends = []

        async def follow(name, stream):
            await asyncio.wait_for(stream.done.wait(), 60)
            ends.append(name)

        alone = await session.generate(PROMPT, LONG, SAMPLED)
        low = await session.submit(PROMPT, LONG, SAMPLED, priority=5)
        await low.started.wait()
        streams = {"low": low}
        for name, priority, tokens in (("equal", 5, NEW), ("high", 0, LONG), ("highest", -7, NEW)):
            streams[name] = await session.submit(PROMPT, tokens, priority=priority)
        await asyncio.gather(*(follow(name, stream) for name, stream in streams.items()))
        assert ends == ["highest", "high", "low", "equal"]
        assert low.token_ids == alone.token_ids and low.last.preemptions > 0


async def test_sequences_share_the_prompt_that_the_first_computes(worker_of, session_to):
    async with session_to(worker_of(*POOL)) as session:
        before = (await session.idle()).totals
        root = {"cache_root": b"n sequences".ljust(16, b".")}
        streams = [await session.submit(PROMPT, 4, SAMPLED, sequence=at, **root) for at in range(4)]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams))
        after = (await session.idle()).totals
        assert [stream.cached_tokens for stream in streams] == [0, 64, 64, 64]
        assert after.cached_tokens - before.cached_tokens == 3 * 64


async def test_a_slow_reader_gets_all_log_probabilities(worker_of):
    """They merge in the outbox with the tokens."""
    async with channel_to(worker_of(*POOL).endpoint) as channel:
        session = await EngineSession(channel, "slow").open(reading=False)
        stream = await session.submit(PROMPT, 40, SAMPLED, logprobs=1, prompt_logprobs=0)
        await asyncio.sleep(0.3)
        session.read()
        await asyncio.wait_for(stream.done.wait(), 20)
        assert [place[0][0] for place in stream.logprobs] == stream.token_ids
        assert len(stream.token_ids) == 40 and len(stream.prompt_logprobs) == len(PROMPT) - 1
        await session.close()


def test_log_probabilities_of_a_prompt_fit_a_message():
    for tokens, top, refused in ((2**20, 0, False), (2**20 + 1, 0, True), (2**20 // 21 + 1, 20, True), (50, 20, False)):
        message = engine_pb2.Submit(token_ids=bytes(tokens), prompt_logprobs=top)
        if refused:
            with pytest.raises(InvalidRequest, match=f"= {top} for {tokens} tokens") as error:
                logprobs_from(message)
            assert error.value.field == "prompt_logprobs"
        else:
            assert logprobs_from(message) == (-1, top)
    assert logprobs_from(engine_pb2.Submit(token_ids=bytes(2**20 + 1), logprobs=20)) == (20, -1)
