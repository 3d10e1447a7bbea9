"""What a slow router's reports merge into."""

import asyncio

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from headway.core.blocks import split_keys
from headway.core.errors import Stale
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_UNSPECIFIED
from headway.worker.engine import Output, Refused
from headway.worker.pages import KvChange, KvOp, Medium
from headway.worker.plan import PlaceLogprobs
from headway.worker.service import outbox as module
from headway.worker.service.changes import ChangeLog, net
from headway.worker.service.outbox import Outbox


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def places(*tokens: int) -> PlaceLogprobs:
    return PlaceLogprobs(1, np.array(tokens, "<u4").tobytes(), np.zeros(len(tokens), "<f4").tobytes())


def random_changes(choices: list[int]) -> list[KvChange]:
    """Changes as a cache makes them: a key is stored only where absent, removed only where present; -1 clears."""
    held: set[int] = set()
    changes = []
    for choice in choices:
        if choice < 0:
            changes.append(KvChange(KvOp.CLEARED, []))
            held.clear()
        else:
            op = KvOp.REMOVED if choice in held else KvOp.STORED
            changes.append(KvChange(op, [key(choice // 3)], Medium(choice % 3)))
            held ^= {choice}
    return changes


Held = set[tuple[Medium, bytes]]


def apply(held: Held, changes: list[KvChange]) -> Held:
    for change in changes:
        named = {(change.medium, key) for key in change.keys}
        if change.op is KvOp.CLEARED:
            held = set()
        elif change.op is KvOp.STORED:
            held = held | named
        else:
            held = held - named
    return held


def stored(log: ChangeLog) -> Held:
    return {(medium, key) for medium, keys in log.stored.items() for key in keys}


@given(st.lists(st.integers(-1, 8)), st.integers(0, 30))
def test_net_has_the_same_effect_and_is_no_longer_than_the_cache(choices, split):
    changes = random_changes(choices)
    before, after = changes[:split], changes[split:]
    known = apply(set(), before)
    merged = net(after)
    assert apply(known, merged) == apply(set(), changes)
    assert sum(len(change.keys) for change in merged) <= 9


@given(st.lists(st.integers(-1, 8), min_size=1), st.integers(0, 30))
def test_change_log_tells_what_was_missed(choices, seen):
    changes = random_changes(choices)
    log = ChangeLog()
    for at, change in enumerate(changes):
        log.add(at + 1, [change])
    missed = log.after(seen)
    assert missed is not None
    assert apply(apply(set(), changes[:seen]), missed) == stored(log) == apply(set(), changes)


def test_change_log_is_bounded_and_knows_what_it_forgot():
    log = ChangeLog()
    for at in range(40):
        log.add(at + 1, [KvChange(KvOp.STORED, [key(at * 1000 + number) for number in range(1000)])])
    assert log.after(3) is None
    assert log.after(39) is not None and len(stored(log)) == 40_000


async def test_merges_until_taken(monkeypatch):
    monkeypatch.setattr(module, "COMPACT_KEYS", 1)
    box = Outbox()
    for at in range(1, 101):
        finish = FINISH_REASON_LENGTH if at == 100 else FINISH_REASON_UNSPECIFIED
        output = Output(7, [at], finish, None, 32 if at == 1 else None, 2 if at == 100 else 0)
        output = output._replace(logprobs=places(at), prompt_logprobs=places(1000, 1001) if at == 1 else None)
        op = KvOp.STORED if at % 2 else KvOp.REMOVED
        changes = [KvChange(op, [key(1)])] + ([KvChange(KvOp.STORED, [key(2)])] if at == 5 else [])
        box.add(at, [output], [], changes, engine_pb2.Load(running=at), at)
    message = await box.take()
    assert (message.first_sequence, message.sequence, message.last_submit_id) == (1, 100, 100)
    (output,) = message.outputs
    assert list(output.token_ids) == list(range(1, 101)) and output.finish_reason == FINISH_REASON_LENGTH
    assert list(output.logprobs.token_ids) == list(range(1, 101)) and output.logprobs.width == 1
    assert list(output.prompt_logprobs.token_ids) == [1000, 1001]
    assert output.cached_tokens == 32 and output.preemptions == 2 and message.load.running == 100
    stored = [split_keys(event.stored.keys) for event in message.kv_events]
    assert stored == [[key(2)]]
    box.add(101, [], [], [], engine_pb2.Load(), 100)
    message = await box.take()
    assert (message.first_sequence, message.sequence, len(message.outputs)) == (101, 101, 0)


async def test_outputs_that_are_too_much_for_a_message_wait_for_the_next(monkeypatch):
    """Oldest first, each whole; no refusal overtakes the output of its request, and at the end nothing stays behind."""
    monkeypatch.setattr(module, "MESSAGE_BYTES", 1000)
    box = Outbox()
    outputs = [Output(at, [], FINISH_REASON_LENGTH, None, None, 0, b"x" * 800) for at in range(1, 6)]
    box.add(1, outputs, [Refused(9, Stale("none")), Refused(3, Stale("late"))], [], engine_pb2.Load(), 5)
    got = [await box.take()]
    for at in (2, 3):
        waiting = asyncio.create_task(box.take())
        await asyncio.sleep(0)
        assert not waiting.done(), "a message has a number of its own"
        more = [outputs[4]._replace(token_ids=[7])] if at == 2 else []
        box.add(at, more, [], [], engine_pb2.Load(), 5)
        got.append(await waiting)
    box.close(Stale("replaced"))
    got += [await box.take() for _ in range(2)]
    with pytest.raises(Stale):
        await box.take()
    assert [(message.first_sequence, message.sequence) for message in got] == [(at, at) for at in range(1, 6)]
    assert [[output.id for output in message.outputs] for message in got] == [[1], [2], [3], [4], [5]]
    assert [[refusal.id for refusal in message.refusals] for message in got] == [[9], [], [3], [], []]
    assert list(got[-1].outputs[0].token_ids) == [7]


async def test_close_sends_the_rest_then_the_error():
    box = Outbox()
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    box.add(1, [], [], [], engine_pb2.Load(), 0)
    box.close(Stale("replaced"))
    assert (await waiting).sequence == 1
    with pytest.raises(Stale):
        await box.take()
