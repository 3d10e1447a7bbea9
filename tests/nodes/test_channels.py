"""Plans reach every rank whole and in order or the writer hears of it; strangers reach nobody; silence is found."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from headway.worker.group import control
from headway.worker.group.nodes.channels import MessageLost, Receiver
from headway.worker.group.nodes.curve import LeaderKeys, prove
from headway.worker.group.nodes.ends import Exchange, Outpost

TOKEN = "our token"
SLOW_S = 30.0


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    exchange = Exchange("127.0.0.1", TOKEN, SLOW_S)
    yield exchange
    while POSTS:  # first, because a rank ends its process when its leader is gone
        POSTS.pop().close()
    exchange.close()


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    context = zmq.Context()
    context.linger = 0  # also of sockets that the collector closes
    yield context
    context.destroy(linger=0)


POSTS: list[Outpost] = []


def outpost(exchange: Exchange, rank: int, *, samples: bool = False, token: str = TOKEN) -> Outpost:
    made = Outpost(exchange.endpoints, rank, SLOW_S, samples=samples)
    POSTS.append(made)
    made.send(control.Attach(rank, token, os.getpid()))
    return made


def until(exchange: Exchange, wanted: type, count: int = 1) -> list[tuple[int, control.Message]]:
    """What comes over the control link, until there are `count` of a kind."""
    heard: list[tuple[int, control.Message]] = []
    limit = time.monotonic() + 10
    while sum(isinstance(message, wanted) for _, message in heard) < count:
        assert time.monotonic() < limit, heard
        heard += exchange.door.receive()
        time.sleep(0.002)
    return heard


def test_plans_reach_all_in_order_and_results_come_back(exchange):
    posts = [outpost(exchange, rank, samples=rank == 3) for rank in (2, 3)]
    plans = exchange.plans([2, 3])
    sent = [bytes([size % 256]) * size for size in (0, 1, 100, 70_000, 3_000_000, *range(300))]
    got: list[list[bytes]] = [[], []]

    def follow(which: int) -> None:
        for _ in sent:
            got[which].append(posts[which].read_plan())
            if which == 1:
                posts[which].write_result(got[which][-1], 10)

    threads = [threading.Thread(target=follow, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    back = []
    for message in sent:
        plans.write(message, 10)
        back.append(exchange.results.read())
    for thread in threads:
        thread.join()
    assert got == [sent, sent] and back == sent


def test_a_reader_that_stalls_is_an_error_and_nothing_is_dropped(exchange):
    post = outpost(exchange, 1)
    plans = exchange.plans([1])
    count = 0
    with pytest.raises(TimeoutError, match="rank 1, on another node"):
        while count < 10_000:
            plans.write(count.to_bytes(4, "little") * 10_000, 0.3)
            count += 1
    assert count > 64
    assert [int.from_bytes(post.read_plan()[:4], "little") for _ in range(count)] == list(range(count))


def test_a_rank_that_is_not_there_is_an_error(exchange):
    with pytest.raises(TimeoutError):
        exchange.plans([1]).write(b"plan", 0.05)


def test_a_gap_is_an_error(context):
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    pull.bind("inproc://gap")
    push.connect("inproc://gap")
    receiver = Receiver(pull)
    for number in (0, 2):
        push.send(number.to_bytes(8, "little") + b"plan")
    assert receiver.read() == b"plan"
    with pytest.raises(MessageLost, match="message 1"):
        receiver.read()


def test_messages_marks_and_notes(exchange):
    post = outpost(exchange, 1)
    post.send(control.Progress(0.5))
    assert until(exchange, control.Progress) == [(1, control.Attach(1, TOKEN, os.getpid())), (1, control.Progress(0.5))]
    exchange.door.send(1, control.ReadAdapter(4, "/adapter"))
    assert not [*exchange.door.receive()]
    assert post.receive() == control.ReadAdapter(4, "/adapter")
    post.mark(8)
    post.note(3)
    last = control.Beat()
    while last != control.Beat(8, 3):
        last = until(exchange, control.Beat)[-1][1]
    post.send(control.Failed("last words", False))
    POSTS.remove(post)
    post.close()
    assert until(exchange, control.Failed)[-1] == (1, control.Failed("last words", False))
    limit = time.monotonic() + 10
    while exchange.door.lost() != [1]:
        assert time.monotonic() < limit
        time.sleep(0.002)


def test_strangers_reach_nobody(exchange, context):
    """Without keys, with keys of their own, and with our keys but not the token."""
    keys = exchange.endpoints
    for endpoint, kind in ((keys.control, zmq.DEALER), (keys.plans, zmq.DEALER), (keys.results, zmq.PUSH)):
        bare, foreign = context.socket(kind), context.socket(kind)
        theirs = LeaderKeys().rank
        prove(foreign, type(theirs)(leader=keys.keys.leader, public=theirs.public, secret=theirs.secret))
        for stranger in (bare, foreign):
            stranger.routing_id = b"rank 1"
            stranger.connect(endpoint)
            with suppress(zmq.Again):  # it may have been turned away by now
                stranger.send((0).to_bytes(8, "little") + b"forged", zmq.NOBLOCK)
    outpost(exchange, 2, token="a guess")
    post = outpost(exchange, 1, samples=True)
    post.write_result(b"ours", 1)
    time.sleep(0.2)
    assert until(exchange, control.Attach) == [(1, control.Attach(1, TOKEN, os.getpid()))]
    assert exchange.results.read() == b"ours"
    plans = exchange.plans([1])
    plans.write(b"plan", 10)
    assert post.read_plan() == b"plan"
    assert exchange.door.lost() == []


def test_who_is_refused_hears_of_it(exchange):
    keys = exchange.endpoints
    theirs = LeaderKeys().rank
    wrong = type(keys)(control=keys.control, plans=keys.plans, results=keys.results, keys=theirs)
    with pytest.raises(OSError, match=r"cannot be reached, or refuses us|does not answer"):
        Outpost(wrong, 1, SLOW_S, samples=False)


def test_it_listens_on_its_address_only(exchange):
    ends = exchange.endpoints
    assert all(end.startswith("tcp://127.0.0.1:") for end in (ends.control, ends.plans, ends.results))
    assert ends.keys.secret not in repr(ends)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1"):
        Exchange("192.0.2.1", TOKEN, SLOW_S)


def test_a_timeout_may_be_any_number():
    for timeout_s in (0.001, 1e9):
        exchange = Exchange("127.0.0.1", TOKEN, timeout_s)
        exchange.close()


def test_a_rank_that_finds_no_room_hears_its_leader_and_loses_nothing(exchange):
    post = outpost(exchange, 1)
    until(exchange, control.Attach)
    words = control.Failed("." * 16_000, False)
    for _ in range(count := 4000):
        post.send(words)
    time.sleep(0.3)  # the leader takes none of them: the line is full
    heard: list[control.Message] = []
    ear = threading.Thread(target=lambda: heard.append(post.receive()), daemon=True)
    ear.start()
    exchange.door.send(1, control.ReadAdapter(4, "/adapter"))
    exchange.door.flush()
    ear.join(5)
    assert heard == [control.ReadAdapter(4, "/adapter")]
    assert len([word for _, word in until(exchange, control.Failed, count) if word == words]) == count


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel does not list its connections")
def test_idle_connections_for_plans_and_results_are_probed_from_both_ends(exchange):
    outpost(exchange, 1, samples=True)
    ends = exchange.endpoints
    for end in (ends.plans, ends.results):
        port = f":{int(end.rpartition(':')[2]):04X}"
        limit = time.monotonic() + 10
        # Of each end: local and remote address, state 01 (established), timer 02 (keepalive).
        while sum(timer == "02" for timer in timers(port)) < 2:
            assert time.monotonic() < limit
            time.sleep(0.01)


def timers(port: str) -> list[str]:
    """The kernel's timers on the established connections from or to a port."""
    lists = [Path("/proc/net", name) for name in ("tcp", "tcp6")]  # a rank's ends are in the latter
    rows = [line.split() for each in lists if each.exists() for line in each.read_text().splitlines()[1:]]
    rows = [row for row in rows if row[3] == "01" and (row[1].endswith(port) or row[2].endswith(port))]
    return [row[5][:2] for row in rows]
