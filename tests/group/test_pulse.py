"""Who owes a step and has not moved for the timeout is late; nobody else is."""

from itertools import count

import pytest

from headway.worker.group.pulse import Pulse, ping_interval


def test_idle_is_not_late():
    pulse = Pulse(2, timeout_s=1.0)
    assert [pulse.check(now, sent=4, worked=4, marks=[4, 4]) for now in (10.0, 100.0, 1000.0)] == [[], [], []]
    assert pulse.check(1000.5, sent=5, worked=5, marks=[4, 4]) == []


def test_a_rank_that_stands_still_is_late_and_named():
    pulse = Pulse(3, timeout_s=1.0)
    assert pulse.check(10.0, sent=5, worked=5, marks=[4, 4, 4]) == []
    assert pulse.check(10.9, sent=5, worked=5, marks=[5, 4, 4]) == []
    assert pulse.check(11.0, sent=5, worked=5, marks=[5, 4, 5]) == [1]


def test_a_rank_that_moves_is_not_late_however_far_behind():
    pulse = Pulse(1, timeout_s=1.0)
    assert [pulse.check(10.0 + at * 0.9, sent=100, worked=100, marks=[at]) for at in range(20)] == [[]] * 20


def test_a_long_step_has_nearly_the_whole_timeout():
    pulse = Pulse(1, timeout_s=10.0)
    assert pulse.check(100.0, sent=5, worked=5, marks=[4]) == []
    assert pulse.check(109.5, sent=6, worked=5, marks=[4]) == []


@pytest.mark.parametrize("timeout_s", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("requests", [False, True])
def test_who_stops_while_idle_is_found_within_the_timeout(timeout_s: float, requests: bool) -> None:
    """Stopped just after a ping: the next one is the first step that it owes, whatever comes after that."""
    pulse, interval = Pulse(1, timeout_s), ping_interval(timeout_s)
    for look in count():
        now = look * pulse.tick_s
        sent = int(now / interval)
        if pulse.check(now, sent, worked=sent if requests and sent > 1 else 0, marks=[0]):
            break
    assert timeout_s / 2 < now <= timeout_s
