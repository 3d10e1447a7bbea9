"""Sessions with a real gRPC server at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rig import Rig, eventually, request, tokens_of
from scripted_engine import PAGE_SIZE, ScriptedEngine, expected_tokens

from headway.core.blocks import chain_keys, root_key
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH
from headway.router.replicas import session

NewEngine = Callable[..., Awaitable[ScriptedEngine]]
KEYS = chain_keys(root_key("rev"), list(range(40)), PAGE_SIZE)


async def test_a_snapshot_in_parts_then_changes_fill_the_index(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.snapshot_part = 3
    engine.store(KEYS[:8])
    await rig.connect(engine)
    assert rig.index.match(KEYS, 0.0) == {"r0": 8}
    engine.store(KEYS[8:])
    await eventually(lambda: rig.index.match(KEYS, 0.0) == {"r0": 10})
    engine.evict(KEYS[5:6])
    await eventually(lambda: rig.index.match(KEYS, 0.0) == {"r0": 5})
    engine.clear()
    await eventually(lambda: rig.index.match(KEYS, 0.0) == {})


async def test_a_broken_stream_is_resumed_where_it_ended(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.store(KEYS[:4])
    await rig.connect(engine)
    engine.break_streams()
    engine.store(KEYS[4:6])
    await eventually(lambda: len(engine.hellos) == 2 and rig.index.match(KEYS, 0.0) == {"r0": 6})
    first, second = engine.hellos
    assert (first.router_id, first.incarnation, first.after_sequence) == ("router-t", "", 0)
    assert second.incarnation == engine.incarnation
    assert second.after_sequence > 0
    assert engine.asset_calls == 1


async def test_a_gap_voids_the_index_and_asks_for_a_snapshot(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.store(KEYS)
    await rig.connect(engine)
    await eventually(lambda: rig.index.match(KEYS, 0.0) == {"r0": 10})
    engine.cached = KEYS[:2]  # what the lost report would have told
    engine.skip_reports()
    await eventually(lambda: len(engine.hellos) == 2 and rig.index.match(KEYS, 0.0) == {"r0": 2})
    assert engine.hellos[1].after_sequence == 0


async def test_a_new_incarnation_starts_with_its_own_cache(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.store(KEYS)
    await rig.connect(engine)
    await eventually(lambda: rig.index.match(KEYS, 0.0) == {"r0": 10})
    await engine.die()
    await eventually(lambda: not rig.catalogue.ready_replicas("m"))
    await engine.start()
    await eventually(lambda: rig.catalogue.ready_replicas("m"))
    assert rig.index.match(KEYS, 0.0) == {}


async def test_a_leader_that_falls_silent_is_left(
    rig: Rig, new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SILENCE_S", 0.3)
    silent, other = await new_engine("silent"), await new_engine("other")
    other.accepting = False
    await rig.connect(silent)
    rig.fleet.add_static(other.endpoint)
    await eventually(lambda: other.hellos)
    silent.step_s = 1000.0
    running = asyncio.create_task(rig.run(request(count=5)))
    await eventually(lambda: silent.submits)
    other.accepting = True
    chunks = await running
    assert (chunks[-1].replica_id, chunks[-1].migrations) == ("other", 1)
    assert tokens_of(chunks) == expected_tokens([1, 2, 3, 4, 5], 7, 5)
    await eventually(lambda: len(silent.hellos) > 1)  # left, and asked again


async def test_describe_becomes_a_served_model(rig: Rig, new_engine: NewEngine) -> None:
    await rig.connect(await new_engine("a"), await new_engine("b"))
    model = rig.catalogue.get("")
    assert (model.name, model.revision, model.page_size, model.max_context_tokens) == ("m", "rev", PAGE_SIZE, 1024)
    assert model.default_sampling == SamplingParams(temperature=0.5)
    assert model.text_assets == {"tokenizer.json": b"{}"}
    assert model.ready_replicas == 2
    assert rig.catalogue.models() == [model]


async def test_reservations_end_with_the_report_that_counts_them(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    engine.hold = True
    running = asyncio.create_task(rig.run(request(prompt=list(range(50)))))
    await eventually(lambda: engine.submits)
    await eventually(lambda: rig.ledger.pending("r0").requests == 0)
    running.cancel()


async def test_without_that_number_a_reservation_ends_with_the_first_token(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    engine.say_last_submit = False
    engine.hold = True
    await rig.connect(engine)
    running = asyncio.create_task(rig.run(request(prompt=list(range(50)))))
    await eventually(lambda: engine.submits)
    assert rig.ledger.pending("r0").tokens == 50
    engine.hold = False
    await running
    assert rig.ledger.pending("r0").requests == 0


async def test_many_requests_share_the_session(rig: Rig, new_engine: NewEngine) -> None:
    engine = await new_engine()
    await rig.connect(engine)
    requests = [request(f"q{number}", prompt=[number], count=1 + number % 7, seed=number) for number in range(12)]
    answers = await asyncio.gather(*map(rig.tokens, requests))
    assert answers == [expected_tokens([n], n, 1 + n % 7) for n in range(12)]
    assert len(engine.hellos) == 1


async def test_a_report_that_says_tokens_of_nobody_ends_the_session_and_costs_no_token(
    rig: Rig, new_engine: NewEngine
) -> None:
    """Not even those that it names requests for: nobody can tell whose they are."""
    engine = await new_engine()
    await rig.connect(engine)
    engine.stray_tokens = 1
    chunks = await rig.run(request(count=12))
    assert engine.stray_tokens == 0 and len(engine.hellos) == 2
    assert tokens_of(chunks) == expected_tokens([1, 2, 3, 4, 5], 7, 12)
    assert (chunks[-1].migrations, chunks[-1].finish_reason) == (1, FINISH_REASON_LENGTH)


async def test_a_router_says_that_it_reads_columns(rig: Rig, new_engine: NewEngine) -> None:
    """Or leaders would give it an output a token."""
    engine = await new_engine()
    await rig.connect(engine)
    assert engine.hellos[0].takes_decoded


@pytest.mark.parametrize("most", [0, 3])
async def test_a_burst_of_requests_shares_messages_as_far_as_the_leader_takes_them(
    rig: Rig, new_engine: NewEngine, most: int
) -> None:
    engine = await new_engine()
    engine.max_commands = most
    await rig.connect(engine)
    burst = [request(f"q{number}", prompt=[number, 2, 3], count=3) for number in range(8)]
    got = await asyncio.gather(*(rig.tokens(one) for one in burst))
    assert got == [expected_tokens(one.token_ids, one.sampling.seed, 3) for one in burst]
    ids = [submit.id for submit in engine.submits]
    assert ids == sorted(ids)
    assert sum(engine.batches) == 8
    assert max(engine.batches) == max(most, 1)


async def test_a_long_prompt_is_not_joined_by_more_than_a_message_may_hold(
    rig: Rig, new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BATCH_BYTES", 150)
    engine = await new_engine()
    await rig.connect(engine)
    burst = [request(f"q{number}", prompt=[number] * 200, count=2) for number in range(4)]
    await asyncio.gather(*(rig.tokens(one) for one in burst))
    assert engine.batches == [1] * 4
