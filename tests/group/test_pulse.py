"""Who owes a step and has not moved for the timeout is late; nobody else is."""

from headway.worker.group.pulse import Pulse


def test_idle_is_not_late():
    pulse = Pulse(2, timeout_s=1.0)
    assert [pulse.check(now, sent=4, marks=[4, 4]) for now in (10.0, 100.0, 1000.0)] == [[], [], []]
    assert pulse.check(1000.5, sent=5, marks=[4, 4]) == []


def test_a_rank_that_stands_still_is_late_and_named():
    pulse = Pulse(3, timeout_s=1.0)
    assert pulse.check(10.0, sent=4, marks=[4, 4, 4]) == []
    assert pulse.check(10.9, sent=5, marks=[5, 4, 4]) == []
    assert pulse.check(11.1, sent=5, marks=[5, 4, 5]) == [1]


def test_a_rank_that_moves_is_not_late_however_far_behind():
    pulse = Pulse(1, timeout_s=1.0)
    assert [pulse.check(10.0 + at * 0.9, sent=100, marks=[at]) for at in range(20)] == [[]] * 20
