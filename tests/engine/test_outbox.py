"""What a slow router's reports merge into."""

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from queue import SimpleQueue

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from headway.core.blocks import split_keys
from headway.core.errors import Stale
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_UNSPECIFIED
from headway.worker.engine import Decoded, Figures, Output, Refused, StepReport
from headway.worker.pages import KvChange, KvOp, Medium
from headway.worker.plan import PlaceLogprobs
from headway.worker.service import columns
from headway.worker.service import outbox as module
from headway.worker.service.changes import ChangeLog, net
from headway.worker.service.hub import Hub
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
        box.add(at, [output], None, [], changes, engine_pb2.Load(running=at), at)
    message = await box.take()
    assert (message.first_sequence, message.sequence, message.last_submit_id) == (1, 100, 100)
    (output,) = message.outputs
    assert list(output.token_ids) == list(range(1, 101)) and output.finish_reason == FINISH_REASON_LENGTH
    assert list(output.logprobs.token_ids) == list(range(1, 101)) and output.logprobs.width == 1
    assert list(output.prompt_logprobs.token_ids) == [1000, 1001]
    assert output.cached_tokens == 32 and output.preemptions == 2 and message.load.running == 100
    stored = [split_keys(event.stored.keys) for event in message.kv_events]
    assert stored == [[key(2)]]
    box.add(101, [], None, [], [], engine_pb2.Load(), 100)
    message = await box.take()
    assert (message.first_sequence, message.sequence, len(message.outputs)) == (101, 101, 0)


async def test_outputs_that_are_too_much_for_a_message_wait_for_the_next(monkeypatch):
    """Oldest first, each whole; no refusal overtakes the output of its request, and at the end nothing stays behind."""
    monkeypatch.setattr(module, "MESSAGE_BYTES", 1000)
    box = Outbox()
    outputs = [Output(at, [], FINISH_REASON_LENGTH, None, None, 0, b"x" * 800) for at in range(1, 6)]
    box.add(1, outputs, None, [Refused(9, Stale("none")), Refused(3, Stale("late"))], [], engine_pb2.Load(), 5)
    got = [await box.take()]
    for at in (2, 3):
        waiting = asyncio.create_task(box.take())
        await asyncio.sleep(0)
        assert not waiting.done(), "a message has a number of its own"
        more = [outputs[4]._replace(token_ids=[7])] if at == 2 else []
        box.add(at, more, None, [], [], engine_pb2.Load(), 5)
        got.append(await waiting)
    box.close(Stale("replaced"))
    got += [await box.take() for _ in range(2)]
    with pytest.raises(Stale):
        await box.take()
    assert [(message.first_sequence, message.sequence) for message in got] == [(at, at) for at in range(1, 6)]
    assert [[output.id for output in message.outputs] for message in got] == [[1], [2], [3], [4], [5]]
    assert [[refusal.id for refusal in message.refusals] for message in got] == [[9], [], [3], [], []]
    assert list(got[-1].outputs[0].token_ids) == [7]


def decoded(**tokens: int) -> Decoded:
    """Of requests by name: `_3=17` is token 17 of request 3."""
    ids = [int(name[1:]) for name in tokens]
    return Decoded(np.array(ids, np.int64), np.array(list(tokens.values()), np.int64))


@dataclass
class Told:
    """All that was said of one request, or all that came of it."""

    tokens: list[int] = field(default_factory=list)
    cached: int | None = None
    end: object = None

    def take(self, output: Output | engine_pb2.StepOutput, cached: int | None) -> None:
        assert self.end is None, "output after the end"
        assert cached is None or (not self.tokens and self.cached is None), "the first output was overtaken"
        self.cached = cached if self.cached is None else self.cached
        self.tokens += output.token_ids


class Feed:
    """Reports as an engine may make them for four requests at a time, and a router that reads them now and then."""

    def __init__(self, *, takes_decoded: bool) -> None:
        self.box = Outbox(takes_decoded=takes_decoded)
        self.said: dict[int, Told] = defaultdict(Told)
        self.read: dict[int, Told] = defaultdict(Told)
        self.ids = {slot: slot for slot in range(4)}
        self.tokens = itertools.count(300)
        self.sequence = 0

    def report(self, news: dict[int, str]) -> None:
        outputs, refusals, plain = [], [], {}
        for slot, kind in news.items():
            id = self.ids[slot]
            first = id not in self.said
            told = self.said[id]
            if kind == "refused":
                refusals.append(Refused(id, Stale("none")))
                told.end = "refused"
            elif first or kind != "plain":
                cached, finish = 16 if first else None, FINISH_REASON_LENGTH if kind == "last" else 0
                if kind == "both" and not first:
                    plain[f"_{id}"] = next(self.tokens)
                    told.tokens.append(plain[f"_{id}"])
                outputs.append(Output(id, [next(self.tokens) for _ in range(2)], finish, None, cached, 0))
                told.take(outputs[-1], cached)
                told.end = finish or None
            else:
                plain[f"_{id}"] = next(self.tokens)
                told.tokens.append(plain[f"_{id}"])
            if told.end:
                self.ids[slot] += 4
        self.sequence += 1
        columns = decoded(**plain) if plain else None
        self.box.add(self.sequence, outputs, columns, refusals, [], engine_pb2.Load(), 0)

    async def take(self) -> bool:
        """As a router does: columns, outputs, refusals. False at the end."""
        message = await self.box.take()
        if message is None:
            return False
        for id, token in zip(message.decoded_ids, message.decoded_tokens, strict=True):
            self.read[id].take(engine_pb2.StepOutput(token_ids=[token]), None)
        for output in message.outputs:
            self.read[output.id].take(output, output.cached_tokens if output.HasField("cached_tokens") else None)
            self.read[output.id].end = output.finish_reason or None
        for refusal in message.refusals:
            assert self.read[refusal.id].end is None
            self.read[refusal.id].end = "refused"
        return True

    @property
    def unread(self) -> int:
        """Requests whose tokens or end have not come, and refusals that have not."""
        count = 0
        for id, said in self.said.items():
            read = self.read.get(id, Told())
            assert said.tokens[: len(read.tokens)] == read.tokens, f"of request {id}"
            refused = said.end == "refused"
            count += said.tokens != read.tokens or (said.end != read.end and not refused)
            count += refused and said.end != read.end
        return count


NEWS = st.dictionaries(
    st.integers(0, 3), st.sampled_from(["plain"] * 12 + ["several", "both", "last", "refused"]), max_size=4
)


@given(
    st.lists(st.one_of(NEWS, st.none()), max_size=40),
    st.sampled_from([16, 32, 200, 1 << 20]),
    st.sampled_from([2, 64]),
    st.booleans(),
)
def test_each_request_is_told_in_order_however_slow_its_router(steps, message_bytes, join_at, takes_decoded):
    """Columns and outputs, read at any time: each request has the tokens, figure and end that were fed, in order."""

    async def run() -> None:
        feed, fed = Feed(takes_decoded=takes_decoded), False
        for slot in range(4):
            feed.report({slot: "several"})
            await feed.take()
        for news in steps:
            if news is not None:
                feed.report(news)
                fed = True
            elif fed:
                await feed.take()
                fed = False
            assert feed.box.unread == feed.unread
        feed.box.close()
        while await feed.take():
            pass
        assert feed.read == feed.said and feed.box.unread == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MESSAGE_BYTES", message_bytes)
        patch.setattr(columns, "JOIN_AT", join_at)
        asyncio.run(run())


async def test_tokens_that_are_too_many_for_a_message_wait_and_nothing_overtakes_them(monkeypatch):
    monkeypatch.setattr(module, "MESSAGE_BYTES", 2 * module.ROW_BYTES)
    box = Outbox()
    last = Output(1, [12], FINISH_REASON_LENGTH, None, None, 0)
    refusals = [Refused(3, Stale("late")), Refused(9, Stale("none"))]
    box.add(1, [last], decoded(_1=11, _2=21, _3=31), refusals, [], engine_pb2.Load(), 3)
    assert box.unread == 3 + 2
    got = [await box.take()]
    box.add(2, [], decoded(_2=22), [], [], engine_pb2.Load(), 3)
    box.close()
    got += [await box.take()]
    assert [list(message.decoded_tokens) for message in got] == [[11, 21], [31, 22]]
    assert [[output.id for output in message.outputs] for message in got] == [[], [1]]
    assert [[refusal.id for refusal in message.refusals] for message in got] == [[9], [3]]
    assert await box.take() is None and box.unread == 0


async def test_columns_go_as_columns_to_the_routers_that_take_them():
    """Each session its own; a router of before gets outputs."""
    hub = Hub("incarnation", SimpleQueue(), lambda: 0.0, Figures())
    new, other, old = (
        hub.join(engine_pb2.Hello(router_id=name, takes_decoded=name != "old"))[0] for name in ("new", "other", "old")
    )
    for step in (100, 200):
        plain = {new.number: decoded(_1=step + 1, _2=step + 2), old.number: decoded(_1=step + 3)}
        hub.publish(StepReport({}, plain, {}, {}, [], Figures()))
    assert [session.outbox.unread for session in (new, other, old)] == [2, 0, 1]
    message = await new.outbox.take()
    assert list(message.decoded_ids) == [1, 2, 1, 2] and list(message.decoded_tokens) == [101, 102, 201, 202]
    assert not message.outputs and not (await other.outbox.take()).decoded_ids
    message = await old.outbox.take()
    assert not message.decoded_ids and not message.decoded_tokens
    assert [(output.id, list(output.token_ids)) for output in message.outputs] == [(1, [103, 203])]


async def test_close_sends_the_rest_then_the_error():
    box = Outbox()
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    box.add(1, [], None, [], [], engine_pb2.Load(), 0)
    box.close(Stale("replaced"))
    assert (await waiting).sequence == 1
    with pytest.raises(Stale):
        await box.take()
