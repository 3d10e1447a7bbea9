"""Requests over real sessions: tokens, prefixes, ends, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import grpc
import pytest
from rig import Rig, eventually, request, tokens_of
from scripted_engine import PAGE_SIZE, ScriptedEngine, expected_tokens

from headway.core.blocks import chain_keys, root_key
from headway.core.errors import (
    AlreadyExists,
    ContextTooLong,
    HeadwayError,
    Internal,
    InvalidRequest,
    Overloaded,
    Unavailable,
)
from headway.proto.headway.v1 import sampling_pb2

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
PROMPT = list(range(100, 500))


async def test_tokens_arrive_once_in_order_with_one_last_chunk(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.cached_tokens = 12
    await rig.connect(engine)
    chunks = await rig.run(request(count=20))
    assert tokens_of(chunks) == expected_tokens([1, 2, 3, 4, 5], 7, 20)
    assert [bool(chunk.finish_reason) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1]
    assert (last.finish_reason, last.migrations) == (sampling_pb2.FINISH_REASON_LENGTH, 0)
    assert {(chunk.replica_id, chunk.cached_tokens) for chunk in chunks} == {("r0", 12)}


async def test_what_is_submitted_is_what_was_asked(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    await rig.run(request("named", prompt=[9, 8, 7], count=3, seed=2**63, salt="s", bypass=True))
    (submit,) = engine.submits
    assert (list(submit.token_ids), submit.delivered, submit.max_new_tokens) == ([9, 8, 7], 0, 3)
    assert (submit.sampling.seed, submit.sampling.HasField("temperature")) == (2**63, True)
    assert (list(submit.eos_token_ids), submit.cache_bypass, submit.request_id) == ([2], True, "named")
    assert submit.cache_root == root_key("rev", caller_salt="s")


async def test_a_slow_front_gets_the_tokens_of_many_steps_in_one_chunk(rig: Rig, new_engine: NewEngine) -> None:
    await rig.connect(await new_engine())
    async with aclosing(rig.dispatcher.stream(request(count=50))) as chunks:
        first = await anext(chunks)
        await eventually(lambda: not rig.fleet.session("r0").live_requests)
        rest = [chunk async for chunk in chunks]
    assert len(rest) == 1
    assert tokens_of([first, *rest]) == expected_tokens([1, 2, 3, 4, 5], 7, 50)


async def test_shared_prefixes_land_on_the_warm_replica(rig: Rig, new_engine: NewEngine) -> None:
    cold, warm = await new_engine("cold"), await new_engine("warm")
    warm.store(chain_keys(root_key("rev"), PROMPT, PAGE_SIZE))
    await rig.connect(cold, warm)
    for number in range(5):
        await rig.run(request(f"q{number}", prompt=[*PROMPT, number], count=1))
    assert (len(cold.submits), len(warm.submits)) == (0, 5)
    await rig.run(request("salted", prompt=PROMPT, count=1, salt="other"))
    await rig.run(request("bypass", prompt=PROMPT, count=1, bypass=True))
    assert len(cold.submits) >= 1  # neither may count on the pages


async def test_a_burst_follows_pages_that_are_on_their_way(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(f"r{number}") for number in range(2)]
    for engine in engines:
        engine.hold = True
    await rig.connect(*engines)
    prompts = [[*range(1000), number] for number in range(4)]
    running = [asyncio.create_task(rig.run(request(f"q{n}", prompt=p))) for n, p in enumerate(prompts)]
    await eventually(lambda: sum(len(engine.submits) for engine in engines) == 4)
    assert sorted(len(engine.submits) for engine in engines) == [0, 4]
    for task in running:
        task.cancel()


async def test_closing_the_stream_aborts_on_the_replica(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    async with aclosing(rig.dispatcher.stream(request(count=10_000))) as chunks:
        await anext(chunks)
    await eventually(lambda: engine.aborts == [engine.submits[0].id])
    assert (engine.running, rig.dispatcher.live_requests) == (0, 0)


async def test_a_first_token_settles_the_reservation(rig: Rig, new_engine: NewEngine) -> None:
    """Also with a replica whose reports do not say which submissions they count."""
    engine = await new_engine()
    engine.say_last_submit = False
    await rig.connect(engine)
    async with aclosing(rig.dispatcher.stream(request(count=10_000))) as chunks:
        await anext(chunks)
        assert rig.ledger.pending("r0").requests == 0


async def test_cancelling_the_front_aborts_on_the_replica(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.hold = True
    await rig.connect(engine)
    task = asyncio.create_task(rig.run(request()))
    await eventually(lambda: engine.running)
    task.cancel()
    await eventually(lambda: engine.aborts and not engine.running)
    assert rig.ledger.pending("r0").requests == 0


async def test_abort_ends_the_stream_with_what_came(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    task = asyncio.create_task(rig.run(request("mine", count=10_000)))
    await eventually(lambda: engine.running)
    assert rig.dispatcher.abort("mine") is True
    assert rig.dispatcher.abort("mine") is False
    chunks = await task
    assert chunks[-1].finish_reason == sampling_pb2.FINISH_REASON_ABORTED
    tokens = tokens_of(chunks)
    assert tokens == expected_tokens([1, 2, 3, 4, 5], 7, len(tokens))
    await eventually(lambda: not engine.running)
    assert rig.dispatcher.abort("mine") is False


async def test_an_id_is_free_again_when_its_request_ended(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.hold = True
    await rig.connect(engine)
    first = asyncio.create_task(rig.run(request("twice", count=2)))
    await eventually(lambda: engine.running)
    with pytest.raises(AlreadyExists):
        await rig.run(request("twice"))
    assert engine.running == 1
    engine.hold = False
    await first
    assert len(await rig.tokens(request("twice", count=2))) == 2


async def test_nobody_to_run_it_is_unavailable_at_once(rig: Rig, new_engine: NewEngine) -> None:
    with pytest.raises(Unavailable) as caught:
        await rig.run(request())
    assert caught.value.retry_after_s
    assert rig.dispatcher.live_requests == 0


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", InvalidRequest),
        (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG", ContextTooLong),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", Overloaded),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", Unavailable),
        (grpc.StatusCode.DATA_LOSS, "ODD", Internal),
    ],
)
async def test_refusals_become_errors_of_the_tree(
    rig: Rig, new_engine: NewEngine, code: grpc.StatusCode, reason: str, error: type[HeadwayError]
) -> None:
    engine = await new_engine()
    engine.refuse, engine.refuse_always = [(code, reason, "because")], True
    await rig.connect(engine)
    with pytest.raises(error) as caught:
        await rig.run(request())
    assert (type(caught.value), caught.value.message) == (error, "because")
    assert len(engine.submits) == 1
    assert rig.ledger.pending("r0").requests == 0


async def test_a_full_replica_sends_the_request_to_another_one(rig: Rig, new_engine: NewEngine) -> None:
    full, free = await new_engine("full"), await new_engine("free")
    full.refuse, full.refuse_always = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "full")], True
    full.store(chain_keys(root_key("rev"), PROMPT, PAGE_SIZE))
    await rig.connect(full, free)
    chunks = await rig.run(request(prompt=PROMPT, count=4))
    assert tokens_of(chunks) == expected_tokens(PROMPT, 7, 4)
    assert (chunks[-1].replica_id, chunks[-1].migrations, len(full.submits)) == ("free", 0, 1)


async def test_asking_around_is_bounded(rig: Rig, new_engine: NewEngine) -> None:
    engines = [await new_engine(f"r{number}") for number in range(5)]
    for engine in engines:
        engine.refuse, engine.refuse_always = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "full")], True
    await rig.connect(*engines)
    with pytest.raises(Overloaded):
        await rig.run(request())
    assert sum(len(engine.submits) for engine in engines) == 3


async def test_known_full_queues_are_refused_without_asking(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.load |= {"running": 8, "waiting": 16}
    await rig.connect(engine)
    with pytest.raises(Overloaded) as caught:
        await rig.run(request())
    assert caught.value.retry_after_s
    assert not engine.submits
